"""Sensors are data: a name, named bands, a type and units. Adding one is an entry in a configuration.

The specifications and the built-in ones are in `spec` and `builtin`. They are loaded when they are first asked for:
an exported model shares the rule of `missing` and runs without the libraries that check a configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gfm_pipeline.sensors.builtin import BUILTIN_SENSORS, S2_BANDS, builtin_sensor
    from gfm_pipeline.sensors.spec import Display, Dtype, Quantisation, SensorSpec

__all__ = ["BUILTIN_SENSORS", "S2_BANDS", "Display", "Dtype", "Quantisation", "SensorSpec", "builtin_sensor"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gfm_pipeline.sensors import builtin, spec

        return getattr(builtin if hasattr(builtin, name) else spec, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
