"""Layouts of folders of NIfTI files: the volumes of ACDC and M&Ms, known by their names.

- ACDC (Bernard et al. 2018): ``patient001_frame01.nii.gz``, a volume for each moment; labels 1 RV,
  2 myocardium, 3 LV. Cines ``patient001_4d.nii.gz`` are left out.
- M&Ms (Campello et al. 2021): ``A0S9V9_sa.nii.gz``, a volume over time, or ``001_SA_ED.nii.gz`` in
  its second edition; labels 1 LV, 2 myocardium, 3 RV. Long axes (``_la``) and ``_SA_CINE`` are left
  out.

Labels lie beside their volume, with ``_gt`` before the ending, ``.nii`` or ``.nii.gz``. Capitals
make no difference. A patient is one beginning of names, in one folder; folders may be nested and
linked. Hidden files and folders are passed over.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cmrseg.data import BadInput, Slices
from cmrseg.datasets.folders import no_folder

# Stored label -> ours (background, RV, Myo, LV): M&Ms counts the ventricles the other way round.
ACDC, MNMS = (0, 1, 2, 3), (0, 3, 2, 1)
FILE = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
# Formats of volumes, too, and of archives.
OTHERS = {".hdr", ".mha", ".mhd", ".nrrd", ".dcm", ".mgz", ".zip", ".tar", ".gz", ".tgz", ".7z"}
SERIES = "4d|sa_cine|la|la_ed|la_es|la_cine"  # names of what is left out
NAME = re.compile(rf"(.+?)_(?:(frame\d+)|sa|sa_ed|sa_es|({SERIES}))(_gt)?", FILE.flags)


@dataclass(frozen=True)
class Volume:
    """One file of a patient's short axis, and that of its labels, or None.

    ``order`` says what the stored labels 0 to 3 are in our order of classes.
    """

    path: Path
    labels: Path | None
    name: str
    patient: str
    order: tuple[int, ...]


@dataclass
class Cohort:
    """What lies in a folder: all patients; the volumes to convert, in the order of names.

    ``left_out`` counts what is left out on purpose; ``notes`` say what the user should know: which
    file or folder, what is odd, what to do.
    """

    folder: Path
    patients: list[str]
    volumes: list[Volume] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    notes: list[BadInput] = field(default_factory=list)


def find(folder: Path) -> Cohort:
    """The volumes below a folder, with their labels.

    Raises:
        BadInput: no such folder, no volume in it, a name of no layout, a volume or a patient that
            is there twice, labels without their volume, or a link to nowhere.
    """
    cohort, files, places = Cohort(folder, []), {}, {}
    for path in _files(folder, cohort.notes):
        stem = FILE.fullmatch(path.name)[1]
        if not (name := NAME.fullmatch(stem)):
            cure = "Name it as ACDC (patient001_frame01, labels patient001_frame01_gt) or M&Ms "
            cure += "(A0S9V9_sa, labels A0S9V9_sa_gt) would, or move it away"
            raise BadInput(path, "has a name of neither layout, ACDC's or M&Ms'", cure)
        # Unpacking may put a folder of its name around a file: that is no patient's.
        place = next(p for p in path.parents if p == folder or not FILE.fullmatch(p.name))
        if (other := places.setdefault(_plain(name[1]), place)) != place:
            cure = "Keep a patient's files in one folder, and give no two patients one name"
            raise BadInput(path, f"is of a patient with other files in {other}", cure)
        if (twin := files.setdefault(_plain(stem), (path, name))[0]) != path:
            raise BadInput(path, f"is the same volume as {twin}", "Move one of them elsewhere")
    cohort.patients = sorted(places)
    labelled = {_plain(name[1]) for _, name in files.values() if name[4] and not name[3]}
    for stem, (path, name) in sorted(files.items()):
        patient, (frame, series, is_labels) = _plain(name[1]), name.groups()[1:]
        labels = files.get(f"{stem}_gt", (None,))[0]
        if series:
            cohort.left_out["cine or long-axis files"] += 1
        elif is_labels and stem.removesuffix("_gt") not in files:
            raise BadInput(path, "has no volume beside it", "Put it there, or move it away")
        elif not is_labels and (labels or patient not in labelled):
            order = ACDC if frame else MNMS
            cohort.volumes.append(Volume(path, labels, name[0], patient, order))
        elif not is_labels:
            problem = "is left out: other volumes of its patient have labels, it has none"
            cohort.notes.append(BadInput(path, problem, "Put its labels beside it"))
    cohort.notes.extend(note for volume in cohort.volumes for note in _other_moment(volume))
    for patient in sorted({*cohort.patients} - {volume.patient for volume in cohort.volumes}):
        problem = f"patient {patient} is left out: no volume of a short axis"
        cohort.notes.append(BadInput(cohort.folder, problem, "Put one there"))
    if not cohort.volumes:
        cure = "Give a folder with .nii.gz files of ACDC or M&Ms"
        raise BadInput(folder, "holds no NIfTI volume of a short axis", cure)
    return cohort


def _other_moment(volume: Volume) -> Iterator[BadInput]:
    """A note on a frame that ACDC's Info.cfg beside it names neither as its ED nor as its ES."""
    info = volume.path.parent / "Info.cfg"
    if (frame := NAME.fullmatch(volume.name)[2]) and info.is_file():
        text = info.read_text(encoding="utf-8", errors="replace")
        moments = {int(number) for number in re.findall(r"^E[DS]\s*:\s*(\d+)", text, re.MULTILINE)}
        if moments and int(frame[len("frame") :]) not in moments:
            named = " and ".join(map(str, sorted(moments)))
            problem = f"is neither ED nor ES by its Info.cfg, which names frames {named}"
            yield BadInput(volume.path, problem, "See that the file is the patient's")


def _files(folder: Path, notes: list[BadInput]) -> Iterator[Path]:
    """The NIfTI files below a folder, through links; ``notes`` gets folders without any."""

    def fail(problem: OSError):
        raise problem

    if not folder.is_dir():
        raise no_folder(folder, "Give the folder that holds the patients")
    seen = set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add(real)
        paths = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        volumes = [path for path in paths if FILE.fullmatch(path.name)]
        others: dict[str, list[Path]] = {}
        for path in paths:
            if not path.exists() or (path in volumes and not path.is_file()):
                cure = "Put the files themselves there, or mend the link"
                raise BadInput(path, "is a link to nowhere, or no file", cure)
            if path not in volumes and path.suffix.lower() in OTHERS:
                others.setdefault(path.suffix.lower(), []).append(path)
        for path, *more in others.values():  # a series of DICOM files is a hundred of a kind
            like = f", and so are {len(more)} more {path.suffix} files here" if more else ""
            problem = f"is left out{like}: it may hold a volume, and is no .nii or .nii.gz"
            cure = "Unpack it, convert it to NIfTI, or move it away"
            notes.append(BadInput(path, problem, cure))
        if not volumes and not folders and place != str(folder):
            notes.append(
                BadInput(place, "holds no NIfTI file", "If it is a patient's, copy it again")
            )
        yield from volumes


def _plain(name: str) -> str:
    """One spelling for capitals and composed letters, in which file systems differ."""
    return unicodedata.normalize("NFC", name).casefold()


def summary(cohort: Cohort, splits: dict[str, Slices]) -> str:
    """What was found, converted and left out on purpose, in words."""
    patients = {split: len(set(slices.patients)) for split, slices in splits.items()}
    into, left_out = (
        ", ".join(f"{n} {name}" for name, n in numbers.items()) or "nothing"
        for numbers in (patients, cohort.left_out)
    )
    slices = f"{sum(map(len, splits.values()))} slices of {sum(patients.values())} patients"
    return f"{slices} of {len(cohort.patients)} found ({into}); left out: {left_out}"
