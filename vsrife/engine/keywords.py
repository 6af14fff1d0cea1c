"""Keywords that choose a network and how it runs; shared by every public call. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    import torch

FLOW_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class ModelKeywords(TypedDict, total=False):
    """Model, device and quality settings, as `vsrife.RIFE` documents them.

    Attributes:
        model: version, name of an installed model, or path of a weights file; None, the default:
            the default model.
        ensemble: average both time directions, for models that were published with it; default False.
        tta: average the eight orientations of the frame; default False.
        tta_temporal: average both time directions, for any model; default False.
        device: such as "cpu" or "cuda:1"; None, the default: the best present.
        precision: of the convolutions, one of `Precision`; None, the default: the best for the device.
    """

    model: str | Path | None
    ensemble: bool
    tta: bool
    tta_temporal: bool
    device: str | torch.device | None
    precision: str | None


class NetworkKeywords(ModelKeywords, total=False):
    """`ModelKeywords` and the flow scale.

    Attributes:
        scale: resolution of the flow estimate relative to the frame, one of `FLOW_SCALES`; default 1.
    """

    scale: float
