"""Which length a raster's values are in."""

_METRES = {
    1.0: ("m", "metre", "metres", "meter", "meters"),
    0.1: ("dm", "decimetre", "decimetres", "decimeter", "decimeters"),
    0.01: ("cm", "centimetre", "centimetres", "centimeter", "centimeters"),
    0.001: ("mm", "millimetre", "millimetres", "millimeter", "millimeters"),
    0.3048: ("ft", "foot", "feet", "international foot"),
    1200 / 3937: ("us-ft", "ftus", "us survey foot", "us survey feet", "survey foot", "survey feet"),
    0.0254: ("in", "inch", "inches"),
    0.9144: ("yd", "yard", "yards"),
}
_BY_NAME = {name: metres for metres, names in _METRES.items() for name in names}


def metres_of(unit: str | None) -> float | None:
    """Metres of one of it; None for a unit that is no length, or not known here, or not said."""
    return _BY_NAME.get((unit or "").strip().strip("[]()").lower().replace("_", " "))
