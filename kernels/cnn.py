"""The small convolutional network of ``reference.models.cnn`` on kernels of our own."""

from torch import Tensor

from kernels.pooled_convolution import pooled_convolution
from kernels.pooling import pooled_relu
from kernels.stem import stem
from reference.models.cnn import CNN


class FastCNN(CNN):
    """The same network from the same generator, its outputs equal to rounding.

    Four times as fast to train on a processor, on grey images and channels last, as a plain loop is. Differentiable
    once there, also with respect to its images.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = stem(x, self.first.weight, self.first.bias)  # type: ignore[arg-type]  # it has a bias
        x = self.hidden(self.pooled(x).flatten(1)).relu_()
        return self.head(x)

    def pooled(self, x: Tensor) -> Tensor:
        """The second layer."""
        return pooled_convolution(x, self.second.weight, self.second.bias)  # type: ignore[arg-type]


class EarlierFastCNN(FastCNN):
    """With torch's own second convolution: what published records of calibration were trained with, to the bit."""

    def pooled(self, x: Tensor) -> Tensor:
        return pooled_relu(self.second(x))
