"""torch.fx: from any traceable torch module to the layer list of `normalform.normal`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from srq_hw.errors import InputError
from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.networks.loading import FloatNetwork
from srq_hw.normalform.fold import fold
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace_functions import FUNCTIONS
from srq_hw.normalform.trace_modules import MODULES
from srq_hw.normalform.translate import Translator

#: side of the image on which module and trace are compared, pixels
PROBE_SIDE = 16
#: float32 of the module against float64 of its layers, relative to the largest value
PROBE_TOLERANCE = 1e-3


def normalize(net: FloatNetwork) -> NormalNet:
    """Trace, translate and fold. InputError names the module or function that integer hardware cannot run."""
    try:
        traced = fx.GraphModule(net.module, _Tracer().trace(net.module))
    except Exception as error:  # torch.fx raises many types; all of them mean the same to the user
        raise InputError(
            f"network {net.name}: torch.fx cannot trace it ({type(error).__name__}: {error}). "
            "Write the forward without data-dependent branches."
        ) from error
    translator = Translator(net, traced, MODULES, FUNCTIONS)
    probe, wanted = _require_same(net, traced)
    layers = translator.run()
    _require_no_more(layers, probe, wanted)
    return fold(layers)


def _require_same(net: FloatNetwork, traced: fx.GraphModule) -> tuple[Tensor, Any]:
    """The probe image and what the module makes of it.

    Module and trace must agree on it: `y += x` on a tensor with another name, say, is traced as a plain sum.
    """
    probe = torch.rand(1, net.channels, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            probe = probe.to(next(net.module.parameters(), probe).dtype) * net.input_max
            wanted, found = net.module(probe.clone()), traced(probe.clone())
    except Exception as error:  # whatever the user's own forward raises
        raise InputError(
            f"network {net.name}: its forward fails on an image of {PROBE_SIDE} x {PROBE_SIDE} pixels "
            f"({type(error).__name__}: {error})"
        ) from error
    if isinstance(wanted, Tensor) and not bool(torch.isfinite(wanted).all()):
        raise InputError(
            f"network {net.name}: its output holds NaN or Inf on an image of random pixels; use another checkpoint "
            f"({net.source}), or fix the module"
        )
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return probe, None  # the translator says what is wrong with the output
    if wanted.shape != found.shape or not torch.allclose(wanted, found, rtol=1e-4, atol=1e-4 * net.input_max):
        raise InputError(
            f"network {net.name}: what torch.fx traces computes something else than the module; an in-place operation "
            "(+=, -=, *=) on a tensor that is used again does that. Write y = y + x."
        )
    return probe, wanted


def _require_no_more(net: NormalNet, probe: Tensor, wanted: Any) -> None:
    """Translated layers and module on the same image: a forward hook, say, is in no layer's weights."""
    with torch.inference_mode():
        found = evaluate(net, probe, dtype=torch.float64)
    if not isinstance(wanted, Tensor) or not bool(torch.isfinite(wanted).all()):
        return  # calibration names the layer that is not finite
    reach = max(net.input_max, float(wanted.abs().max()))
    if wanted.shape != found.shape or float((wanted - found).abs().max()) > PROBE_TOLERANCE * reach:
        raise InputError(
            f"network {net.name}: its layers compute something else than the module; a forward hook, or a layer class "
            "with a forward of its own, does that. Write the operation out in the module's forward."
        )


class _Tracer(fx.Tracer):
    """Upsampling by a filter is one operation, whatever its module is made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BicubicUpsample) or super().is_leaf_module(m, module_qualified_name)
