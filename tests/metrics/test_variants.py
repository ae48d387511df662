"""Ways to super-resolve in a validation, and the metrics of each."""

from __future__ import annotations

from srflow_plugin.metrics.variants import make_val_variants

PSNR, STD, NLL, NIQE = ({"type": f"calculate_{name}"} for name in ("psnr", "pixel_std", "nll", "niqe"))


def test_variants_of_one_temperature_keep_the_metrics_names() -> None:
    variants = make_val_variants([0.9], False, {"psnr": PSNR})
    assert [(v.suffix, v.temperature, list(v.metrics)) for v in variants] == [("", 0.9, ["psnr"])]


def test_metrics_are_those_that_a_variant_has() -> None:
    variants = make_val_variants([0, 0.8], True, {"psnr": PSNR, "std": STD, "nll": NLL})
    assert [(v.suffix, v.temperature, list(v.metrics)) for v in variants] == [
        ("_tau0", 0, ["psnr_tau0", "nll"]),  # of samples there is nothing to say, of the network all
        ("_tau0.8", 0.8, ["psnr_tau0.8", "std_tau0.8"]),
        ("_bicubic", None, ["psnr_bicubic"]),
    ]


def test_the_learned_prior_is_a_variant_without_samples() -> None:
    variants = make_val_variants([0.8, "learned"], False, {"psnr": PSNR, "std": STD})
    assert [(v.suffix, v.temperature, list(v.metrics)) for v in variants] == [
        ("_tau0.8", 0.8, ["psnr_tau0.8", "std_tau0.8"]),
        ("_taulearned", "learned", ["psnr_taulearned"]),
    ]


def test_metrics_say_which_values_are_better() -> None:
    metrics = {"psnr": PSNR, "niqe": NIQE, "odd": {**PSNR, "better": "lower"}}
    (variant,) = make_val_variants([0.9], False, metrics)
    better = {name: section["better"] for name, section in variant.metrics.items()}
    assert better == {"psnr": "higher", "niqe": "lower", "odd": "lower"}
    assert "better" not in PSNR
