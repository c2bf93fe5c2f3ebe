"""Public files on this machine: fetched once with pooch, checked by hash before anything reads them, kept in a cache folder.

Two environment variables: ``SPECTRAKIT_CACHE`` names the folder (otherwise the operating system's cache folder), and ``SPECTRAKIT_OFFLINE``, set to anything,
forbids the network. A file comes under a temporary name and is moved to its own when its hash is right, so neither a broken connection nor two processes at
once leave half a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataFileError
from ..manifests import Manifest, load
from . import container

CACHE, OFFLINE = "SPECTRAKIT_CACHE", "SPECTRAKIT_OFFLINE"
ATTEMPTS, AT_ONCE, TIMEOUT = 3, 4, 30  # downloads of a file, files at once, seconds without a byte
CHUNK = 2**16  # bytes


def fetch(name: str, file: str, *, sha256: str = "") -> Path:
    """One public file of a manifest, from the cache or from its origin; ``fetch("specclip_weights", "specclip_pr.ckpt", sha256="...")``.

    Parameters
    ----------
    name, file : of the manifest and of one of its files.
    sha256 : for files whose hash the manifest does not know. Take it from the host's page, which the message names; nothing is fetched unchecked.

    Raises
    ------
    DataFileError
        No such file; its hash is not known; it is not in the cache and the network is forbidden, not there, or brings something else.
    """
    manifest = load(name)
    entry = next((entry for entry in manifest.public() if entry["file"] == file), None)
    if entry is None:
        known = [entry["file"] for entry in manifest.public()]
        raise DataFileError(f"The manifest {name!r} lists no public file {file!r}; it has: {', '.join(known[:8]) or 'none'}{' ...' if len(known) > 8 else ''}.")
    if not (entry["sha256"] or sha256):
        raise DataFileError(f"The SHA-256 of {file} is not known to the manifest {name!r}, and nothing is fetched unchecked. Look it up where the file is published "
                            f"({entry['url']}) and give it: fetch({name!r}, {file!r}, sha256=...).")
    return fetch_all(manifest, [{**entry, "sha256": entry["sha256"] or sha256}])[0]


def fetch_all(manifest: Manifest, entries: list[dict]) -> list[Path]:
    """All these files, in order, with a progress bar when there are several; those that came before an error are kept, and not fetched again.

    Raises
    ------
    DataFileError
        As ``fetch``.
    """
    import pooch
    from tqdm import tqdm
    place = folder() / manifest.name
    shelf = pooch.create(place, base_url="", registry={entry["file"]: f"sha256:{entry['sha256']}" for entry in entries}, retry_if_failed=ATTEMPTS - 1,
                         urls={entry["file"]: entry["url"] for entry in entries})
    missing = [entry["file"] for entry in entries if not _whole(place / entry["file"], entry)]
    if missing and os.environ.get(OFFLINE):
        raise DataFileError(f"{missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''} of {manifest.name!r} {'is' if len(missing) == 1 else 'are'} "
                            f"not in {place}, and {OFFLINE} forbids the network. Unset it, or copy the files there. Origin: {manifest.whence()}.")
    with _quiet(), ThreadPoolExecutor(AT_ONCE) as workers:
        jobs = [workers.submit(_one, shelf, entry, manifest) for entry in entries]
        try:
            return [Path(job.result()) for job in tqdm(jobs, desc=f"{manifest.name}: files", disable=len(jobs) < 2, leave=False)]
        finally:
            for job in jobs:
                job.cancel()


def folder() -> Path:
    """Where fetched and converted files are kept."""
    import pooch
    return Path(os.environ.get(CACHE) or pooch.os_cache("spectrakit"))


def _whole(path, entry):
    import pooch
    return path.is_file() and pooch.file_hash(str(path)) == entry["sha256"]


def _one(shelf, entry, manifest):
    import requests
    try:
        return shelf.fetch(entry["file"], downloader=_Download(entry))
    except (ValueError, OSError, requests.exceptions.RequestException) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataFileError(f"{entry['file']} of {manifest.name!r} could not be fetched from {entry['url']} in {ATTEMPTS} attempts ({reason}). Nothing of it was "
                            f"kept; what came before it is in {shelf.path}. Try again later, or see {manifest.home}.") from error


class _Download:
    """What pooch calls to get a file; pooch's own takes any number of bytes and web pages too, and leaves connections open."""

    def __init__(self, entry: dict):
        self.limit = entry["bytes"] or 2**40

    def __call__(self, url: str, output_file: str, pooch) -> None:
        import requests
        with requests.get(url, stream=True, timeout=TIMEOUT) as response, open(output_file, "wb") as file:
            response.raise_for_status()
            for chunk in response.iter_content(CHUNK):
                if not file.tell() and container.is_page(chunk[:1024]):
                    raise ValueError("the server answered with a web page (HTML), not with the file")
                file.write(chunk)
                if file.tell() > self.limit:
                    raise ValueError(f"the server sent more than {self.limit} bytes, more than the file has")


@contextmanager
def _quiet() -> Iterable[None]:
    """pooch without its line a file: the progress bar says it."""
    import pooch
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(before)
