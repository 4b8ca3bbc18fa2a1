"""Fetch the real sets from their makers: say first what it is, then resume, check, unpack."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_tutorial.errors import InputError

UNPACKING = ".unpacking"
CHUNK = 1 << 16  # bytes; as much is lost, at most, when a connection breaks


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes
    ----------
    page : where a person reads about it.
    terms : under what terms it is given, and what to cite.
    url : the archive; None where only a person can fetch it, and `by_hand` says how.
    size : of the archive, in bytes, about.
    sha256 : of the archive; None where no checksum is published.
    unpacks_to : the folder that the archive holds.
    """

    title: str
    page: str
    terms: str
    url: str | None = None
    size: int = 0
    sha256: str | None = None
    unpacks_to: str = ""
    by_hand: str = ""


_NLM_TERMS = (
    "given by the U.S. National Library of Medicine for research, no licence text is known; "
    "name the source and cite S. Jaeger et al., Quant. Imaging Med. Surg. 4(6):475-477, 2014"
)

SOURCES: dict[str, Source] = {
    "montgomery": Source(
        title="Montgomery County: 138 X-rays with masks of both lungs",
        page="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
        "Montgomery-County-CXR-Set/MontgomerySet/index.html",
        terms=_NLM_TERMS + "; for the masks also S. Candemir et al., IEEE Trans. Med. Imaging 33(2), 2014",
        url="http://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip",
        size=602_000_000,
        sha256="54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
        unpacks_to="MontgomerySet",
    ),
    "shenzhen": Source(
        title="Shenzhen: 662 X-rays (the lung masks come apart, see shenzhen-masks)",
        page="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
        "Shenzhen-Hospital-CXR-Set/index.html",
        terms=_NLM_TERMS,
        url="http://openi.nlm.nih.gov/imgs/collections/ChinaSet_AllFiles.zip",
        size=3_680_000_000,
        unpacks_to="ChinaSet_AllFiles",
    ),
    "shenzhen-masks": Source(
        title="lung masks of 566 Shenzhen X-rays",
        page="https://www.kaggle.com/datasets/yoctoman/shcxr-lung-mask",
        terms="CC BY-NC-SA 4.0 (not for commercial use); cite S. Stirenko et al., arXiv:1803.01199",
        by_hand="Kaggle gives it to users who are signed in. Download it on the page above, or with\n"
        "Kaggle's own tool (`kaggle datasets download yoctoman/shcxr-lung-mask`), and unpack it so that\n"
        "shenzhen/ChinaSet_AllFiles/mask/CHNCXR_0001_0_mask.png is there (mask/mask/ is found too).",
    ),
    "jsrt": Source(
        title="JSRT: 247 X-rays, 154 with a lung nodule, and the SCR masks of their lungs",
        page="http://db.jsrt.or.jp/eng.php",
        terms="pictures: for registered users, for research; cite J. Shiraishi et al., Am. J. Roentgenol. "
        "174, 2000. SCR masks: for research and teaching, no redistribution, no commercial use; cite "
        "B. van Ginneken et al., Med. Image Anal. 10(1), 2006",
        by_hand="JSRT asks every user to register, so no script can fetch it:\n"
        "1. On the page above, choose a user name and a password, and wait for the answer by e-mail.\n"
        "2. Download the pictures (.IMG) and Clinical_Information.\n"
        "3. Ask for the SCR masks at https://www.isi.uu.nl/Research/Databases/SCR/ (Zenodo record 7056076\n"
        "   is said to hold the outlines as points; they are not read here).\n"
        "4. Unpack all so that these are there:\n"
        "   jsrt/All247images/JPCLN001.IMG\n"
        "   jsrt/scratch/fold1/masks/left lung/JPCLN001.gif\n"
        "   jsrt/Clinical_Information/CLNDAT_EN.txt",
    ),
}


def describe(name: str) -> str:
    """Say what a data set is, where it comes from, how large it is, its terms and its checksum.

    Addresses, sizes and checksums were gathered from the makers' pages and from public code. The archives'
    server has been reported both open and closed; `page` is where to look if it does not answer.

    >>> print(describe("montgomery"))
    montgomery: Montgomery County: 138 X-rays with masks of both lungs
      page:     https://data.lhncbc.nlm.nih.gov/...
      terms:    given by the U.S. National Library of Medicine for research, ...
      archive:  http://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip
      size:     about 0.6 GB, twice that while it is unpacked
      SHA-256:  54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424
    """
    source = _source(name)
    lines = {"page": source.page, "terms": source.terms}
    if source.url:
        lines["archive"] = source.url
        lines["size"] = f"about {source.size / 1e9:.1f} GB, twice that while it is unpacked"
        lines["SHA-256"] = source.sha256 or "none is published; the archive's own check sums are tested"
    facts = [f"  {key + ':':<9} {value}" for key, value in lines.items()]
    return "\n".join([f"{name}: {source.title}", *facts, *source.by_hand.splitlines()])


def download(name: str, folder: str | Path, *, yes: bool = False) -> Path:
    """Fetch a data set into `folder/name`, check it and unpack it; what it is is printed first.

    A download that was cut off is kept as `*.part` and goes on from there the next time.

    Parameters
    ----------
    name : a key of `SOURCES`.
    folder : what `CXR_DATA` shall point to.
    yes : go ahead without asking.

    Returns
    -------
    `folder/name`, which the set's loader reads.

    Raises
    ------
    InputError
        Only a person can fetch this set (the message says how), the answer was no, the disk is too full,
        the server does not answer, or the checksum is wrong; nothing half-written is left under a final name.

    Notes
    -----
    Introduced in chapter 1.

    >>> download("jsrt", "data")
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: jsrt: JSRT: 247 X-rays, ...
    """
    source = _source(name)
    if source.url is None:
        raise InputError(describe(name))
    home = Path(folder).expanduser() / name
    print(describe(name))
    if (home / source.unpacks_to).exists():
        print(f"{home / source.unpacks_to} is there already")
        return home
    if not yes:
        _ask(home)
    home.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home / UNPACKING, ignore_errors=True)
    free = shutil.disk_usage(home).free
    needed = 2 * source.size - sum(file.stat().st_size for file in home.iterdir() if file.is_file())
    if free < needed:
        raise InputError(f"{home} has {free / 1e9:.1f} GB free: {name} needs {needed / 1e9:.1f} GB")
    _unpack(_fetch(source, home), home, source)
    return home


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise InputError(f"no data set {name!r} to download: choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def _ask(home: Path) -> None:
    try:
        answer = input(f"Download into {home}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("nothing was downloaded: answer y, or say yes=True (--yes on the command line)")


def _fetch(source: Source, home: Path) -> Path:
    """The archive, checked. Pooch moves it to its name only after its checksum was right."""
    import pooch
    import requests

    url = source.url
    assert url is not None
    pooch.get_logger().setLevel("WARNING")  # what it would say has been shown
    known_hash = f"sha256:{source.sha256}" if source.sha256 else None
    try:
        name = url.rsplit("/", 1)[-1]
        return Path(pooch.retrieve(url, known_hash, fname=name, path=home, downloader=_resume))
    except requests.RequestException as problem:
        raise InputError(
            f"{url} could not be fetched ({problem}): what came is kept, so try again later to go on from "
            f"there, or look at {source.page}"
        ) from problem
    except ValueError as problem:
        raise InputError(
            f"{url} is not the file that was expected, it has been deleted ({problem}): try again, "
            f"or look at {source.page} for a newer release"
        ) from problem


def _resume(url: str, output_file: str, pooch: Any) -> None:
    """A downloader for pooch that goes on where an earlier one stopped (HTTP range request)."""
    import requests
    from tqdm.auto import tqdm

    part = Path(output_file).with_name(url.rsplit("/", 1)[-1] + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            total = have  # all of it came before
        else:
            response.raise_for_status()
            goes_on = response.status_code == requests.codes.partial_content
            length = int(response.headers.get("Content-Length", 0))
            page = "text/html" in response.headers.get("Content-Type", "")
            if have and not goes_on and (page or 0 < length < have):
                raise requests.ConnectionError("the server sent something else, such as a page to log in")
            have = have if goes_on else 0
            total = have + length
            with (
                part.open("ab" if goes_on else "wb") as file,
                tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
            ):
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    if part.stat().st_size < total:
        raise requests.ConnectionError(f"cut off after {part.stat().st_size:,} of {total:,} bytes")
    part.replace(output_file)


def _unpack(archive: Path, home: Path, source: Source) -> None:
    """Unpack aside, then rename: a set is there whole or not at all."""
    aside = home / UNPACKING
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(aside)
    except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
        archive.unlink()
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(f"{archive} is no whole zip archive ({problem}); it was deleted, try again") from problem
    found = next((path for path in sorted(aside.rglob(source.unpacks_to)) if path.is_dir()), None)
    if found is None:
        there = ", ".join(sorted(path.name for path in aside.iterdir()))
        shutil.rmtree(aside)
        raise InputError(f"{archive} holds no folder {source.unpacks_to}, only {there}: unpack it by hand")
    found.replace(home / source.unpacks_to)
    shutil.rmtree(aside)
    archive.unlink()
