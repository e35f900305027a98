# SPDX-License-Identifier: Apache-2.0
"""Learning of a target as static graphs, with the conventions of `dimp_ros.model.inference.graphs`.

==================  ==================================================================================================
graph               inputs, then outputs
==================  ==================================================================================================
`FirstFrameGraph`   ``stride8`` ``[1, C8, S/8, S/8]``, ``stride16`` ``[1, C16, S/16, S/16]``,
                    ``features`` ``[V, C, S/16, S/16]``, ``boxes`` ``[V, 4]``, ``dropout`` ``[D, C16]``;
                    ``samples`` ``[V + D, C, S/16, S/16]``, ``filter`` ``[1, C, k, k]``, ``modulation8`` ``[1, M8]``,
                    ``modulation16`` ``[1, M16]``
`UpdateGraph`       ``filter``, ``features`` ``[N, C, S/16, S/16]``, ``boxes`` ``[N, 4]``, ``weights`` ``[N]``;
                    ``updated`` ``[1, C, k, k]``
==================  ==================================================================================================
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet


class FirstFrameGraph(nn.Module):
    """From features of views of the first frame to a target's samples, initial filter and modulation vectors.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("stride8", "stride16", "features", "boxes", "dropout")
    OUTPUTS: ClassVar = ("samples", "filter", "modulation8", "modulation16")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.classifier, self.overlap = net.classifier, net.bb_regressor

    def forward(
        self, stride8: Tensor, stride16: Tensor, features: Tensor, boxes: Tensor, dropout: Tensor
    ) -> tuple[Tensor, ...]:
        """Learn a target; see the table of this module.

        :param stride8: of the plain view, as ``stride16``. :param features: of all views, the plain one first.
        :param boxes: the target in each view.
        :param dropout: factors of the channels of D copies of the plain view: 0, or 1 / (1 - rate).
        """
        copies = self.classifier.features(stride16 * dropout[..., None, None])
        samples = torch.cat((features, copies))
        targets = torch.cat((boxes, boxes[:1].expand(dropout.shape[0], -1)))
        initial = self.classifier.filter_initializer(samples[None], targets[None])
        return samples, initial, *self.overlap.modulation(Features(stride8, stride16), boxes[:1])


class UpdateGraph(nn.Module):
    """One step of the filter's optimiser on a target's samples (section 3.2).

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("filter", "features", "boxes", "weights")
    OUTPUTS: ClassVar = ("updated",)

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.optimizer = net.classifier.filter_optimizer

    def forward(self, filter: Tensor, features: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
        """Return the next filter; ``weights`` of the samples sum to 1."""
        updated: Tensor = self.optimizer(filter, features[None], boxes[None], weights[None], steps=1)[-1]
        return updated
