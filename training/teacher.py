"""A trained network as teacher: what it makes of a sample is the student's example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoint import read_network
from training.forward import TrainingForward
from training.samples import Batch
from vsrife.networks.catalogue import Layout
from vsrife.networks.ifnet import IFNet

LEAST_TRUST = 0.2  # of the flow to a frame that the teacher does not show


class Teacher:
    """Adds a network's flow and picture to samples.

    Args:
        net: The network, on the training device.
        precision: Of its convolutions.
    """

    def __init__(self, net: IFNet, precision: torch.dtype) -> None:
        self.forward = TrainingForward(net.eval().requires_grad_(False), precision)

    @property
    def layout(self) -> Layout:
        return self.forward.layout

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """Return the samples with the flow of the teacher's last block and its picture; flow that is known stays.

        A flow counts by how much of its frame the teacher shows: where a frame is covered, the flow to it says nothing.
        """
        last = self.forward(batch.frame0, batch.frame1, batch.timestep).stages[-1]
        known = batch.trust[:, :1] > 0
        share = torch.sigmoid(last.mask)
        trust = (2 * torch.cat((share, 1 - share), dim=1)).clamp_min(LEAST_TRUST)
        return replace(
            batch,
            flow=torch.where(known, batch.flow, last.flow),
            trust=torch.where(known, batch.trust, trust),
            picture=last.blend,
        )


def load_teacher(path: Path, device: torch.device, precision: torch.dtype) -> Teacher:
    """Return a teacher of any layout of the catalogue.

    Raises:
        WeightsError: The file is missing, or of no known layout.
    """
    return Teacher(read_network(path).to(device).to(memory_format=torch.channels_last), precision)
