"""Passing on: what to change where layers pass on too little of the gradient."""

from __future__ import annotations

import numpy as np

from ..store import Recommendation
from .initialization import as_code, can_be_drawn, drawn_anew, he_normal, squashing
from .rule import Context
from .snippets import activation_snippet
from .windows import Window
from .words import number, percent


def passing_on(
    window: Window, context: Context, layers: list[str], decay: float, *, gone: bool
) -> Recommendation:
    """Return the advice for layers that pass on `decay` of the gradient each, by root mean square.

    `layers`: in the order of the model, the last one of them only compared with. `gone`: nothing comes back at all.
    """
    known = can_be_drawn(context)
    hidden = [layer for layer in layers[:-1] if layer in known]
    kinds = squashing(window, context)
    weights = window.layers("gradients", "weight_sq", count=1, group="weight")
    numels = window.layers("gradients", "numel", count=1, group="weight")
    spread = dict(
        zip(weights.layers, np.sqrt(weights.values[-1] / numels.values[-1]).tolist(), strict=True)
    )
    gain = min(1 / decay, 30.0)
    init = {
        layer: {
            "kind": "xavier_normal",
            "std": float(f"{spread[layer] * gain:.3g}"),
        }
        for layer in hidden
    }
    if kinds:
        drawn = he_normal(context)
        return Recommendation(
            parameter="activation",
            current=dict.fromkeys(kinds, "saturating"),
            proposed=dict.fromkeys(kinds, "ReLU"),
            basis="rule of thumb",
            formula=f"each layer passes on {percent(decay)}; a ReLU passes on all where it fires, "
            "with weights of deviation sqrt(2 / fan-in), sqrt(1 / fan-in) where another layer follows at once",
            snippet="\n".join(
                [activation_snippet(layer, "ReLU()", "relu(x)") for layer in kinds]
                + ([as_code(drawn, context)] if drawn else [])
            ),
            effect=f"raises the gradient by {number(1 / decay)} times a layer",
            verify=f"gradient of `{layers[0]}` over a hundredth of the last layer's at once",
            risk="outputs are no longer bounded; keep the last layer as it is",
            also=[{"parameter": "weight_init", "proposed": drawn}] if drawn else [],
        )
    anew = he_normal(context) if gone else {}
    if anew:  # no factor helps where nothing at all comes back: ReLUs whose units are dead
        return drawn_anew(
            anew,
            context,
            basis="rule of thumb",
            formula="standard deviation sqrt(2 / fan-in), biases of zero: half of the units fire on "
            "any sample",
            effect="each layer passes its gradient on",
            verify=f"a gradient of `{layers[0]}` that is not zero at once",
            risk="starts again from the first step; weights that were loaded would be lost",
        )
    return Recommendation(
        parameter="weight_init",
        current={
            layer: {"kind": "as drawn", "std": float(f"{spread[layer]:.3g}")} for layer in hidden
        },
        proposed=init,
        basis="derived",
        formula=f"standard deviation × {number(gain)}: what each layer loses of the gradient",
        snippet="\n".join(
            f'torch.nn.init.normal_(model.get_submodule("{layer}").weight, std={value["std"]:g})'
            for layer, value in init.items()
        ),
        effect="each layer passes its gradient on undiminished",
        verify=f"gradient of `{layers[0]}` over a hundredth of the last layer's at once",
        risk="needs a start from the first step; a normalization layer or residual connection is sounder",
    )
