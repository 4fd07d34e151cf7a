"""What every test shares: one thread, and helpers of this folder importable."""

import os
import sys
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})
sys.path.insert(0, str(Path(__file__).parent))
