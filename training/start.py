"""How weights begin, so that a flow appears within the first minutes."""

from __future__ import annotations

import torch
from torch import nn

from vsrife.ops.protocol import LEAKY_SLOPE

OUTPUT_SHARE = 0.05  # of the usual spread, for layers that put out flow and mask: near zero, but not zero


def initialise(net: nn.Module) -> None:
    """He initialisation; first kernels do not answer to flat colour, output layers are nearly silent.

    With PyTorch's own initialisation and output layers of zero no flow appears for a long time.
    """
    for name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        with torch.no_grad():
            if name.endswith(("conv0.0.0", "first")):
                module.weight -= module.weight.mean(dim=(2, 3), keepdim=True)
            elif "lastconv" in name:
                module.weight *= OUTPUT_SHARE
            elif name.endswith(".conv"):
                module.weight *= 0.5  # a residual layer adds to what passes it
