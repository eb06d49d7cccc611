"""A raster with all that belongs to it, alone in a folder: nothing beside it there can change what GDAL reads.

A GeoTIFF's mask, world file and metadata may lie in files beside it: they are linked with it. The tag that says what a
result was made of is added to the metadata file, from where GDAL takes it into the result.
"""

import os
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from xml.sax.saxutils import escape

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from jobs.flood_risk_cog.nodata import AUX, is_number, numbers_of_bands
from jobs.flood_risk_cog.places import PlaceRefused, check_place
from jobs.flood_risk_cog.tiff import full_size_directories

FINGERPRINT_TAG = "COREMACHINE_SOURCE"
# GDAL opens a mask with whatever driver fits.
TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MASK = ".msk"
# Of ERDAS Imagine and older ArcGIS: GDAL reads it where there is no .aux.xml.
AUX_OF_IMAGINE, IMAGINE_BEGINS = ".aux", b"EHFA_HEADER_TAG"
# They take the place of the name's suffix.
WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld")
# What GDAL's readers of satellites' metadata look for, and ArcGIS and MapInfo write, in lower case: it is not read.
NOT_TAKEN = (".aux", ".imd", ".rpb", ".rpc", ".pvl", ".eph", ".pass", ".xml", ".vat.dbf", ".clr", ".prj", ".tab")
NOT_TAKEN_OF_STEM = ("_rpc.txt", "_metadata.txt", "_metadata.xml", "_mtl.txt")
MOST_AUX_BYTES = 32 << 20


# In a coordinate system, all that names files to open; @null is PROJ's word for none.
_NAMES_A_FILE = re.compile(
    r"nadgrids(?!\s*=\s*@null\b(?!\s*,))|geoidgrids|PROJ4_GRIDS|PARAMETERFILE|\+?\b(init|grids|file)\s*=|://",
    re.IGNORECASE,
)


# In a staged metadata file, whose letters of ASCII are bytes.
_SRS = re.compile(rb"<SRS\b([^>]*?)(?:/>|>.*?</SRS>)", re.DOTALL)
_EPOCH = re.compile(rb"coordinateEpoch\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_ROOT = re.compile(rb"<PAMDataset\b[^>]*>")


class UnreadableSidecar(ValueError):
    """A file beside the raster is not what its name says."""


def without_case(name: str) -> bytes:
    """What GDAL compares of names: it takes letters of ASCII as equal in upper and lower case."""
    return name.encode(errors="surrogatepass").lower()


def by_name_without_case(names: Iterable[str]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for name in names:
        found.setdefault(without_case(name), []).append(name)
    return found


def sidecars_among(name: str, there: Mapping[bytes, list[str]]) -> list[str]:
    """Those of a folder's files (`by_name_without_case`) that belong to the raster of this name.

    GDAL finds masks and world files without regard to case, and metadata by its exact name.
    """
    found = []
    for own, suffix in _parts_of_names(name):
        candidates = there.get(without_case(own + suffix), [])
        if suffix == AUX:
            found += [each for each in candidates if each == own + suffix]
        else:
            # Another raster's name may differ in case only.
            found += [each for each in candidates if each.startswith(own)] or candidates
    return found


def not_taken_among(name: str, there: Mapping[bytes, list[str]]) -> list[str]:
    """Those of a folder's files that describe the raster of this name, and of which the COG gets nothing."""
    stem = name.rpartition(".")[0]
    names = [name + AUX, *(own + ending for own in (name, stem) for ending in NOT_TAKEN)]
    names += [stem + ending for ending in NOT_TAKEN_OF_STEM]
    found = {each for own in names for each in there.get(without_case(own), ())}
    return sorted(found - {name + AUX})


def sidecar_names(name: str) -> list[str]:
    """What files that belong to a raster of this name are mostly called, where a folder cannot be listed."""
    return [
        own + each
        for own, suffix in _parts_of_names(name)
        for each in ((suffix,) if suffix == AUX else (suffix, suffix.upper(), suffix.title()))
    ]


def _parts_of_names(name: str) -> list[tuple[str, str]]:
    stem = name.rpartition(".")[0]
    return [(name, MASK), (name, AUX), *((stem, suffix) for suffix in (*WORLD_FILES, AUX_OF_IMAGINE))]


def sidecars_of(path: Path) -> list[Path]:
    """Files beside a local raster that belong to it."""
    return [each for name in sidecars_among(path.name, files_beside(path)) if (each := path.with_name(name)).is_file()]


def check_differ(names: Iterable[str]) -> None:
    """Refuse files beside a raster that are the same one for GDAL: it would take any of them."""
    for same in by_name_without_case(names).values():
        if len(same) > 1:
            raise UnreadableSidecar(f"{' and '.join(sorted(same))}: their names differ in case only; remove one")


def files_beside(path: Path) -> dict[bytes, list[str]]:
    """The files of a local raster's folder, `by_name_without_case`."""
    try:
        return by_name_without_case(each.name for each in path.parent.iterdir())
    except PermissionError:
        # `Path.is_file` raises on a name that is too long.
        names = sidecar_names(path.name)
        return by_name_without_case(each for each in names if os.path.isfile(path.with_name(each)))  # noqa: PTH113


def stage_raster(path: str, folder: Path, fingerprint: str) -> Path:
    """Link a local raster and what belongs to it into an empty folder; the path to open there.

    Raises:
        UnreadableSidecar: Its metadata file is no XML of GDAL's.
    """
    source = Path(path)
    staged = folder / f"source{source.suffix.lower()}"
    staged.symlink_to(source.resolve())
    aux = imagine = None
    sidecars = sidecars_of(source)
    check_differ(each.name for each in sidecars)
    for sidecar in sidecars:
        _check_link(sidecar)
        if sidecar.name.endswith(AUX):
            aux = sidecar
            continue
        if sidecar.suffix.lower() == AUX_OF_IMAGINE:
            imagine = sidecar if _is_of_imagine(sidecar) else None
            continue
        suffix = sidecar.suffix.lower()
        if suffix == MASK:
            _check_mask(sidecar)
        (folder / f"{staged.name if suffix == MASK else staged.stem}{suffix}").symlink_to(sidecar.resolve())
    if aux is not None:
        document, text = _read_aux(aux), aux.read_bytes()
    else:
        text = _aux_from_imagine(imagine, source, folder) if imagine is not None else b"<PAMDataset></PAMDataset>"
        document = ET.fromstring(text)  # noqa: S314 - our own
    (folder / f"{staged.name}.aux.xml").write_bytes(_with_tag(document, text, fingerprint))
    return staged


def _with_tag(document: ET.Element, text: bytes, fingerprint: str) -> bytes:
    """The metadata with the tag: all else stays as it was written, prefixes of XML in it too."""
    tag = f'<Metadata><MDI key="{FINGERPRINT_TAG}">{fingerprint}</MDI></Metadata>'
    before, end, after = text.rpartition(b"</PAMDataset")
    with suppress(ET.ParseError):
        result = before + tag.encode() + end + after
        if end and ET.fromstring(result).findtext(f"Metadata/MDI[@key='{FINGERPRINT_TAG}']"):  # noqa: S314 - as below
            return result
    # Of another encoding, or empty.
    document.append(ET.fromstring(tag))  # noqa: S314 - our own
    return bytes(ET.tostring(document, encoding="utf-8"))


def replace_crs(staged: str, wkt: str) -> None:
    """Have a staged raster's metadata file, which GDAL heeds before the TIFF, give it another coordinate system.

    All else stays as it was written, the epoch of its coordinates and prefixes of XML in it too.
    """
    aux = Path(f"{staged}{AUX}")
    text = aux.read_bytes()
    found = _SRS.search(text)
    epoch = _EPOCH.search(found[1]) if found else None
    element = b"<SRS%b>%b</SRS>" % (b" " + epoch[0] if epoch else b"", escape(wkt).encode("ascii", "xmlcharrefreplace"))
    aux.write_bytes(_ROOT.sub(lambda root: root[0] + element, _SRS.sub(b"", text), count=1))


def has_epoch(staged: str) -> bool:
    """Whether a staged raster's coordinates are of a time by its metadata file."""
    aux = Path(f"{staged}{AUX}")
    found = _SRS.search(aux.read_bytes()) if aux.is_file() else None
    return found is not None and _EPOCH.search(found[1]) is not None


def names_a_file(crs: str) -> bool:
    """Whether a text of a coordinate system would have GDAL or PROJ open something else."""
    return bool(_NAMES_A_FILE.search(crs))


def _check_link(path: Path) -> None:
    """A file beside the raster is where that may be; a link may lead elsewhere."""
    if not path.is_symlink():
        return
    try:
        check_place(str(path.resolve()), listed=True)
    except PlaceRefused as refused:
        raise UnreadableSidecar(f"{path.name}: a link out of the allowed places ({refused}); remove it") from refused


def _check_mask(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) not in TIFF_BEGINS:
            raise UnreadableSidecar(f"{path.name}: expected a mask as TIFF, found another file; remove it")


def _read_aux(path: Path) -> ET.Element:
    # Python's expat bounds what entities expand to, and opens nothing that they name.
    if path.stat().st_size > MOST_AUX_BYTES:
        raise UnreadableSidecar(f"{path.name}: expected at most {MOST_AUX_BYTES >> 20} MB of metadata, found more")
    try:
        document = ET.parse(path).getroot()  # noqa: S314 - as above
    except ET.ParseError as error:
        raise UnreadableSidecar(f"{path.name}: expected GDAL's metadata as XML, found {error}; remove it") from error
    if any((each.get("domain") or "").upper() == "OVERVIEWS" for each in document.iter("Metadata")):
        raise UnreadableSidecar(f"{path.name}: it names another file as overviews; remove OVERVIEW_FILE")
    if any(names_a_file(" ".join([each.text or "", *each.attrib.values()])) for each in document.iter("SRS")):
        raise UnreadableSidecar(f"{path.name}: its coordinate system names a file; remove it (gdal_edit -a_srs)")
    if wrong := _no_number(document):
        raise UnreadableSidecar(f"{path.name}: its {wrong}, and GDAL would take another number; correct or remove it")
    if document.tag != "PAMDataset":
        raise UnreadableSidecar(f"{path.name}: expected GDAL's PAMDataset, found {document.tag[:50]!r}; remove it")
    return document


def _no_number(document: ET.Element) -> str | None:
    """The first text in the place of a number that is none, in words: GDAL takes 0 for `none`, and 1 for `1,5`."""
    for _, name, text in numbers_of_bands(document):
        if "," in text or not is_number(text):
            return f"{name} is the text {text.strip()[:50]!r}, which is no number"
    return None


def _aux_from_imagine(path: Path, raster: Path, folder: Path) -> bytes:
    """GDAL's own metadata with what a file of ERDAS Imagine changes in values: the nodata of each band."""
    link = folder / "imagine.aux"
    link.symlink_to(path.resolve())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(link, driver="HFA")
        with dataset:
            nodata, size = dataset.nodatavals, (dataset.width, dataset.height)
            described = dataset.tags(ns="HFA").get("HFA_DEPENDENT_FILE") or raster.name
    except RasterioError as error:
        raise UnreadableSidecar(f"{path.name}: expected metadata of ERDAS Imagine, found {error}; remove it") from error
    # As GDAL decides: `a.aux` may be of an `a.img` beside it. `Path.exists` raises on a name that is too long.
    other = os.path.join(raster.parent, described)  # noqa: PTH118
    is_of_another = without_case(described) != without_case(raster.name) and os.path.exists(other)  # noqa: PTH110
    if is_of_another or size not in {(each.width, each.height) for each in full_size_directories(str(raster))[:1]}:
        nodata = ()
    bands = "".join(
        f'<PAMRasterBand band="{number}"><NoDataValue>{value!r}</NoDataValue></PAMRasterBand>'
        for number, value in enumerate(nodata, start=1)
        if value is not None
    )
    return f"<PAMDataset>{bands}</PAMDataset>".encode()


def _is_of_imagine(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(IMAGINE_BEGINS)) == IMAGINE_BEGINS
