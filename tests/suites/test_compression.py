"""The compression suite: what a cell is given and how it is judged, and golden cells."""

import dataclasses
import math
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import suites.compression as compression
from lossboard import board, environment, protocol, run
from lossboard.data import load
from lossboard.entries import entries_of
from lossboard.errors import UsageError
from lossboard.sources import source
from reference.compressors import packing
from reference.compressors.layers import layers
from suites.compression import charts, judging, networks
from suites.compression.claims import CLAIMS
from suites.compression.settings import Loss, Setting, Training

SUITE = protocol.load("compression")
METHODS = run.suite_methods(SUITE)
QUICK, CPU = SUITE.track("quick"), SUITE.track("cpu")
GOLDEN = Path(__file__).parent / "golden_compression.toml"


@pytest.fixture(autouse=True, scope="module")
def _artifacts(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Networks are trained once for this module, whatever this machine keeps."""
    from lossboard import paths

    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "local", lambda: folder)
    folder = tmp_path_factory.mktemp("kept")
    networks.subject.cache_clear()
    yield
    networks.subject.cache_clear()
    patch.undo()


def cell(method: str, name: str, seed: int = 0, track: protocol.Track = QUICK) -> protocol.Cell:
    found = SUITE.cells(track, {method: METHODS[method]}, [seed])
    return next(each for each in found if each.task.name == name)


def measured(method: str, name: str, seed: int = 0) -> run.Record:
    return judged(cell(method, name, seed))


def judged(one: protocol.Cell) -> run.Record:
    (record,) = compression.run(protocol.Unit((one,), 1.0), run.Context(METHODS, load))
    assert record.status == "ok"
    return record


def test_boards_and_who_stands_on_them() -> None:
    for track in (QUICK, CPU):
        names = [part.name for part in track.divisions]
        assert names == [f"{track.name}-{kind}" for kind in ("quantization", "pruning", "semi-structured")]
    entered = {part.name: {each.method for each in SUITE.cells(part, METHODS, [0])} for part in QUICK.divisions}
    assert entered["quick-quantization"] | entered["quick-pruning"] == METHODS.keys()
    assert not entered["quick-quantization"] & entered["quick-pruning"]
    assert entered["quick-semi-structured"] < entered["quick-pruning"]
    assert len(METHODS) >= 18


def test_methods_are_compared_at_equal_settings() -> None:
    names = {task.name: task for task in QUICK.tasks}
    assert names["digits/mlp-ce-int3"].parts["setting"] == Setting(bits=3)
    assert names["digits/small-cnn-ce-2of4"].parts["setting"].share == 0.5
    kinds = {task.kind for task in QUICK.tasks if task.parts["setting"].bits}
    assert kinds == {"quantization"}
    assert {task.parts["loss"].method for task in CPU.tasks} == {"ce", "gce", "focal"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "one of bits"),
        ({"bits": 4, "sparsity": 0.5}, "one of bits"),
        ({"bits": 1}, "2 to 8 bits"),
        ({"sparsity": 1.0}, "2 to 8 bits"),
        ({"n": 4, "m": 4}, "0 < n < m"),
        ({"bits": 4, "inputs": 9}, "inputs of 2 to 8 bits"),
        ({"sparsity": 0.5, "inputs": 8}, "beside weights in few bits"),
    ],
)
def test_settings_that_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Setting(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="positive"):
        Training(steps=10, batch=0, lr=0.1, further=1, further_lr=0.1)
    with pytest.raises(UsageError, match="loss or calibration"):
        Loss("ce", kind="attack")


def test_a_unit_is_all_compressors_of_one_network_at_one_setting() -> None:
    cells = SUITE.cells(CPU, {id: METHODS[id] for id in ("rtn", "qat", "magnitude")})
    units = sorted(compression.group(cells), key=lambda unit: -unit.cost)
    assert sorted(each.key for unit in units for each in unit.cells) == sorted(each.key for each in cells)
    assert all(len({(each.task.id, each.seed) for each in unit.cells}) == 1 for unit in units)
    assert len(units) == len(CPU.tasks) * len(CPU.seeds)
    networks = [compression.network(unit.cells[0].task, unit.cells[0].seed) for unit in units]
    assert len(set(networks[:6])) == 6, "two texts, three seeds: all are trained before one is used again"


def test_every_track_can_be_planned_and_its_networks_told_apart() -> None:
    for track in SUITE.tracks.values():
        units = list(compression.group(SUITE.cells(track, METHODS)))
        assert all(unit.cost > 0 for unit in units)
    names = {charts.named(task) for task in SUITE.track("gpu").tasks}
    assert names == {f"wikitext2, {name}, ce" for name in ("SmolLM2-135M", "pythia-160m", "Qwen2.5-0.5B")}


def test_a_training_without_steps_is_for_models_that_come_trained() -> None:
    one = cell("rtn", "digits/mlp-ce-int3").task
    with pytest.raises(UsageError, match="no steps"):
        networks.subject(one.having(training=dataclasses.replace(one.parts["training"], steps=0)), 0, load)


def test_a_network_is_trained_once_and_has_learnt_something() -> None:
    task = cell("rtn", "digits/mlp-ce-int3").task
    first = networks.subject(task, 0, load)
    networks.subject.cache_clear()
    again = networks.subject(cell("magnitude", "digits/mlp-ce-sparse-0.9").task, 0, load)
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True))
    assert torch.equal(first.calibration, again.calibration)
    assert len(first.calibration) == 128
    assert not first.network.training
    right = (first.logits.argmax(1) == first.rows.test_target).double().mean()
    assert right > 0.93
    rows = first.rows
    assert {len(rows.inputs), len(rows.test_inputs)} == {
        1797 - round(0.3 * 1797) - round(0.05 * 1797),
        round(0.3 * 1797),
    }


def test_windows_of_a_text_follow_each_other() -> None:
    found = networks._windows(bytes(range(65, 91)) * 40, context=8)
    assert found.inputs.shape == found.target.shape == (123, 8)
    assert torch.equal(found.inputs[:, 1:], found.target[:, :-1])
    assert torch.equal(found.inputs[1:, 0], found.target[:-1, -1])
    assert found.classes == 26
    assert found.text


@pytest.mark.parametrize("name", ["digits/mlp-ce-int3", "digits/small-cnn-ce-int3"])
@pytest.mark.parametrize("method", sorted(id for id, method in METHODS.items() if method.kind == "quantization"))
def test_eight_bits_lose_next_to_nothing(method: str, name: str) -> None:
    """At most the larger of a tenth of a point and two test rows: else the pipeline is wrong."""
    record = judged(dataclasses.replace(one := cell(method, name), task=one.task.having(setting=Setting(bits=8))))
    rows = round(0.3 * 1797)
    assert record.metrics["drop"] <= max(0.001, 2 / rows) + 1e-9
    if "training" not in METHODS[method].supplied:
        assert record.metrics["agreement"] >= 1 - 4 / rows


def test_what_a_record_says_by_hand() -> None:
    """Bytes, bits, zeros and products of the perceptron 64-128-128-10 at 90 % cut."""
    found = measured("magnitude", "digits/mlp-ce-sparse-0.9").metrics
    sizes = [64 * 128, 128 * 128, 128 * 10]
    kept = sum(size - int(0.9 * size + 1e-9) for size in sizes)
    assert found["zeros"] == pytest.approx(1 - kept / sum(sizes))
    assert found["flops"] == 2 * kept
    payload = sum(sizes) / 8 + 4 * kept + 4 * (128 + 128 + 10)
    assert payload < found["bytes"] < payload + 500, "and the line that says what follows"
    assert found["weight_bits"] == pytest.approx(1 + 32 * kept / sum(sizes))
    assert found["entropy_bytes"] < found["bytes"]
    assert found["drop"] == pytest.approx(found["full"] - found["accuracy"])


def test_products_of_a_convolution_count_for_every_pixel() -> None:
    subject = networks.subject(cell("rtn", "digits/small-cnn-ce-int3").task, 0, load)
    pixels = {"first": 64, "second": 16, "hidden": 1, "head": 1}
    wanted = sum(2 * layer.weight.numel() * pixels[name] for name, layer in layers(subject.network).items())
    assert judging.flops(subject.network, subject.calibration) == wanted


def test_the_network_that_is_judged_is_the_one_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is read as nothing but zeros the record is of such a network, whatever the compressor returned."""
    one = cell("rtn", "digits/mlp-ce-int2")
    sizes = {name: value.shape for name, value in networks.subject(one.task, 0, load).network.named_parameters()}
    assert judged(one).metrics["accuracy"] > 0.5
    monkeypatch.setattr(packing, "decode", lambda file: {name: torch.zeros(shape) for name, shape in sizes.items()})
    found = judged(one).metrics
    assert found["nll"] == pytest.approx(math.log(10))
    assert found["accuracy"] < 0.2, "the first class, always"


def test_a_file_read_again_has_four_values_in_a_row_of_two_bits() -> None:
    one = cell("rtn", "digits/mlp-ce-int2")
    subject = networks.subject(one.task, 0, load)
    found, _ = judging.compressed(one, METHODS["rtn"], subject, subject.network)
    read = packing.unpacked(packing.decode(packing.encode(found)))
    assert all(len(row.unique()) <= 4 for w in read.values() for row in w)


def test_a_network_of_many_layers_has_a_metric_for_each() -> None:
    """As many as the largest pinned language model has, and more."""
    packed = {str(i): packing.sparse(torch.eye(2), torch.eye(2) > 0, torch.Size([2, 2])) for i in range(230)}
    found = judging.layerwise(packed)
    assert {"bits01", "bits230", "zeros01", "zeros230"} <= found.keys()
    assert not [name for name in found if not SUITE.metrics.known(name)]


def test_activations_are_rounded_too_and_their_scales_are_counted() -> None:
    """Eight bits of both lose next to nothing, four of activations more; whoever is trained learns to live with it."""
    found = {}
    for setting in (Setting(bits=4), Setting(bits=4, inputs=4), Setting(bits=8, inputs=8)):
        for method in ("rtn", "qat"):
            one = cell(method, "digits/small-cnn-ce-int3")
            found[method, setting] = judged(dataclasses.replace(one, task=one.task.having(setting=setting))).metrics
    plain, few, eight = (found["rtn", s] for s in dict.fromkeys(setting for _, setting in found))
    assert eight["drop"] <= 2 / round(0.3 * 1797) + 1e-9
    assert few["kl"] > plain["kl"]
    assert found["qat", Setting(bits=4, inputs=4)]["nll"] < few["nll"]
    names = '"first.inputs":{"kind":"float32","shape":[2]}'
    assert plain["bytes"] + 4 * (8 + len(names) - 1) < few["bytes"] < plain["bytes"] + 4 * (8 + len(names) + 4)


def test_a_residual_network_is_compressed_without_its_normalisation() -> None:
    one = cell("gptq", "fashion_mnist/resnet8-ce-int4", track=CPU)
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    bars = torch.arange(28) // 2 % 10 == labels[:, None, None]
    images = (torch.rand(400, 28, 28, generator=g) * 60 + 150 * bars).to(torch.uint8)[:, None]
    parts = {"train": slice(0, 300), "test": slice(300, 400)}
    data = SimpleNamespace(
        features={name: images[part].numpy() for name, part in parts.items()},
        labels={name: labels[part].numpy() for name, part in parts.items()},
        classes=10,
    )
    how = Training(steps=60, batch=32, lr=4e-3, further=3, further_lr=1e-3, calibration=16)
    split = dataclasses.replace(one.task.split, train=0, held_out=0)
    for method in ("gptq", "evopress", "lsq"):
        each = cell(method, one.task.name, track=CPU)
        each = dataclasses.replace(each, task=each.task.having(training=how, split=split))
        (record,) = compression.run(protocol.Unit((each,), 1.0), run.Context(METHODS, lambda _: data))
        assert record.status == "ok", record.error
        assert record.metrics["full"] > 0.8, "statistics of batches are those of training"
        assert record.metrics["accuracy"] > 0.5
        assert {"bits01", "bits10"} <= record.metrics.keys(), "nine convolutions and the head"


def test_a_text_is_judged_by_its_next_characters() -> None:
    text = np.frombuffer(b"to be or not to be, that is it; " * 150, np.uint8)
    context = run.Context(METHODS, lambda _: SimpleNamespace(features={"all": text}))
    how = Training(steps=80, batch=8, lr=1e-2, further=3, further_lr=1e-3, context=16, calibration=16)
    small = {"model": protocol.Model("transformer", 1, 24), "training": how}
    for method, name in (("gptq", "int4"), ("kd", "sparse-0.5"), ("jackpot", "2of4")):
        one = cell(method, f"tinyshakespeare/transformer-ce-{name}", track=CPU)
        one = dataclasses.replace(one, task=one.task.having(**small))
        (record,) = compression.run(protocol.Unit((one,), 1.0), context)
        assert record.status == "ok", record.error
        found = record.metrics
        assert found["perplexity"] == pytest.approx(math.exp(found["nll"]))
        assert found["full"] > 0.5 > found["drop"] >= -0.1
        assert [key for key in found if not SUITE.metrics.known(key)] == []


def test_a_line_between_networks_that_are_alike_and_lie_apart() -> None:
    """Hidden units in another order: the same outputs, and nothing that works half way."""
    subject = networks.subject(cell("rtn", "digits/mlp-ce-int3").task, 0, load)
    own = {name: p.detach() for name, p in subject.network.named_parameters()}
    first, second = (name for name, w in own.items() if w.shape[0] == 128 and w.ndim == 2)
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    moved = own | {first: own[first][order], second: own[second][:, order]}
    moved[first.replace("weight", "bias")] = own[first.replace("weight", "bias")][order]
    other = networks.loaded(subject.network, moved).eval()
    same = judging.side_by_side(subject.network, subject.network, subject)
    assert same == pytest.approx({"connectivity": 0.0, "cka": 1.0})
    found = judging.side_by_side(subject.network, other, subject)
    assert found["connectivity"] < -0.01
    assert found["cka"] == pytest.approx(1, abs=1e-6)


def test_regimes_are_trained_twice_and_mapped() -> None:
    track = SUITE.track("regimes")
    assert len(track.tasks) == 30
    epochs = {t.parts["training"].steps * t.parts["training"].batch / 9000 for t in track.tasks}
    assert all(abs(each - 10) < 0.1 for each in epochs), "as many epochs whatever the batch"
    one = cell("fine_tuned", "digits/mlp-ce-sparse-0.9")
    how = dataclasses.replace(one.task.parts["training"], twice=True)
    found = judged(dataclasses.replace(one, task=one.task.having(training=how)))
    once = judged(one)
    assert found.bits == once.bits, "the first time is as ever"
    assert -0.2 < found.metrics["connectivity"] <= 0
    assert 0.8 < found.metrics["cka"] < 1
    assert not {"connectivity", "cka"} & once.metrics.keys()

    methods = {id: METHODS[id] for id in ("magnitude", "fine_tuned")}
    headers = headers_of(methods)
    twice = {"accuracy": 0.5, "connectivity": -0.1, "cka": 0.9}
    made = [
        dataclasses.replace(
            run.recorded(each, "ok", twice if each.method == "fine_tuned" else {"accuracy": 0.4}),
            header=headers[each.method],
        )
        for each in SUITE.cells(track, methods)
    ]
    (part,) = track.divisions
    tuned = board.build(SUITE, part, made)
    drawn = charts.figures(part, tuned, entries_of(part, tuned, tuned, made))
    assert [figure.name for figure in drawn] == [f"{part.name}-regimes-{name}" for name in charts.REGIMES]
    assert all("512" in figure.svg and "98 % cut" in figure.svg for figure in drawn)
    for figure, told in zip(drawn, ("50.0", "-10.0", "90.0"), strict=True):
        assert figure.svg.count(f">{told}</text>") == 30, "percent, points and percent"


# -- language models of the hub ----------------------------------------------------------------------------------------


def tiny(folder: Path, kind: str, **own: object) -> protocol.Model:
    """A language model with random weights and a tokenizer of bytes, as the hub keeps them."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=256, bos_token_id=0, eos_token_id=0, **own)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return protocol.Model("causal-lm", repository=str(folder), revision="0" * 40)


LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
KNOWN = {
    "llama": LLAMA | {"tie_word_embeddings": True},
    "qwen2": LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "gpt_neox": LLAMA | {"max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_language_model_is_read_and_compressed(kind: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, kind, **KNOWN[kind])
    text = np.frombuffer("to be or not to be, that is café; ".encode() * 60, np.uint8)
    context = run.Context(METHODS, lambda _: SimpleNamespace(features={"valid": text, "test": text[:700]}))
    how = Training(steps=0, batch=4, lr=1e-3, further=6, further_lr=1e-3, context=32, calibration=8)
    found = {}
    for method, name in (("rtn", "int4"), ("gptq", "int4"), ("qat", "int4"), ("wanda", "sparse-0.5"), ("kd", "2of4")):
        one = cell(method, f"wikitext2/smollm2-135m-ce-{name}", track=SUITE.track("gpu"))
        one = dataclasses.replace(one, task=one.task.having(model=model, training=how))
        (record,) = compression.run(protocol.Unit((one,), 1.0), context)
        assert record.status == "ok", record.error
        found[method] = record.metrics
        assert record.metrics["perplexity"] == pytest.approx(math.exp(record.metrics["nll"]))
    assert found["rtn"]["nll_full"] == pytest.approx(math.log(256), abs=0.5), "weights are random"
    assert found["qat"]["nll"] < found["rtn"]["nll"], "and learn"
    subject = networks.subject(one.task, 0, context.data)
    assert not [name for name in layers(subject.network) if "head" in name or "embed" in name]
    assert len(layers(subject.network)) == {"llama": 14, "qwen2": 14, "gpt_neox": 8, "gpt2": 8}[kind]


def test_language_models_that_are_refused(tmp_path: Path) -> None:
    from suites.compression.language import pretrained

    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match="40 hex digits"):
        protocol.Model("causal-lm", repository="someone/something", revision="main")
    with pytest.raises(UsageError, match=r"empty' at 0000.* cannot be read"):
        pretrained(protocol.Model("causal-lm", repository=str(tmp_path / "empty"), revision="0" * 40))
    own = LLAMA | {"head_dim": 16, "num_key_value_heads": 1, "final_logit_softcapping": 0.01}
    capped = tiny(tmp_path / "capped", "gemma2", **own)
    with pytest.raises(UsageError, match="not its last hidden states times a matrix"):
        pretrained(capped)


def test_metrics_have_words() -> None:
    for method, name in (("rtn", "digits/mlp-ce-int2"), ("magnitude", "digits/small-cnn-ce-2of4")):
        assert [key for key in measured(method, name).metrics if not SUITE.metrics.known(key)] == []


def test_claims_are_about_tasks_and_methods_that_there_are() -> None:
    for claim in CLAIMS:
        for part in claim.parts:
            held = [task for task in SUITE.tasks.values() if part.on.holds(task)]
            assert held, claim.id
            assert {part.ours, part.other} <= METHODS.keys(), claim.id
            kinds = {METHODS[id].kind for id in (part.ours, part.other)}
            assert kinds == {task.kind for task in held}, claim.id


def headers_of(methods: dict[str, run.Method]) -> dict[str, run.records.Header]:
    made = None, False, {}, {}, "2026-01-01T00:00:00+00:00"
    return {
        id: run.records.Header("compression", method.module, source(method.module), *made)
        for id, method in methods.items()
    }


def test_charts_of_a_track() -> None:
    part = SUITE.track("quick-quantization")
    methods = {id: METHODS[id] for id in ("rtn", "gptq", "baq")}
    headers = headers_of(methods)
    found = []
    for i, each in enumerate(SUITE.cells(part, methods)):
        bits = each.task.parts["setting"].bits
        share = 0.8 + 0.01 * bits + 0.001 * (7 * i % 11)
        metrics = {
            "accuracy": share,
            "full": 0.95,
            "bytes": 1000.0 * bits + i % 7,
            "bits01": bits + 0.5,
            "bits02": bits,
        }
        found.append(dataclasses.replace(run.recorded(each, "ok", metrics), header=headers[each.method]))
    tuned = board.build(SUITE, part, found)
    drawn = charts.figures(part, tuned, entries_of(part, tuned, tuned, found))
    assert [figure.name for figure in drawn] == [
        f"quick-quantization-{kind}-digits-{model}-ce" for model in ("mlp", "small-cnn") for kind in ("front", "layers")
    ]
    assert all(figure.svg.startswith("<svg") for figure in drawn)
    rows = [{"x": 3.0, "y": 1.0}, {"x": 1.0, "y": 1.0}, {"x": 2.0, "y": 4.0}, {"x": 2.0, "y": 3.0}]
    assert charts.front(rows) == [{"x": 1.0, "y": 1.0}, {"x": 2.0, "y": 4.0}]


GOLDEN_CELLS = {
    "gptq": ("gptq", "digits/small-cnn-ce-int3"),
    "gradual": ("gradual", "digits/mlp-ce-sparse-0.9"),
}
UNSTEADY = {"compress_s", "extra_bytes"}


@pytest.mark.parametrize("name", GOLDEN_CELLS)
def test_golden_cells(name: str) -> None:
    """Bits where processor and torch are those they were made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    golden = tomllib.loads(GOLDEN.read_text())
    record = measured(*GOLDEN_CELLS[name])
    steady = {key: float(f"{value:.6g}") for key, value in record.metrics.items() if key not in UNSTEADY}
    found = {"bits": record.bits, **steady}
    here = environment.environment()
    if all(here[key] == golden["env"][key] for key in golden["env"]):
        assert found == golden[name]
    assert found.keys() == golden[name].keys()
    for metric in ("accuracy", "full", "agreement", "weight_bits", "zeros"):
        assert found[metric] == pytest.approx(golden[name][metric], abs=SUITE.metrics.tolerance)
