"""Models on a Hugging Face hub, through the package `huggingface_hub` (extra `hub`).

`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` are honoured, because that package does.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alloyforge.errors import AlloyForgeError, DownloadError, MissingDependencyError

if TYPE_CHECKING:
    from alloyforge.models.find import Progress

# What a folder of safetensors is read from.
_FOLDER_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
)
# Where a repository has several GGUF files and none is named, the first of these that it has: the
# usual balance first, then larger ones before smaller ones.
_QUANT_ORDER = (
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1",
    "Q6_K", "Q8_0", "MXFP4", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "BF16", "F16", "F32",
)  # fmt: skip
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.[a-z]+$)")


def fetch(name: str, progress: Progress | None = None) -> pathlib.Path:
    """Gives the GGUF file or the folder that a hub id names, fetched into the hub's own cache.

    Args:
        name: `org/name`, `org/name:file.gguf` or `org/name:Q4_K_M`.
        progress: Told how far a download is.

    Raises:
        MissingDependencyError: `huggingface_hub` is not installed.
        FileNotFoundError: the repository, or the file in it, does not exist.
        DownloadError: the hub could not be asked, or the repository holds no model.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingDependencyError(
            f"`{name}` is a Hugging Face id, which needs the package huggingface_hub: "
            "pip install 'alloyforge[hub]'"
        ) from error
    repo = name.partition(":")[0]
    try:
        files = [s.rfilename for s in hub.HfApi().model_info(repo).siblings or []]
        chosen = choose(name, files)
        bar = _bar(name, progress)
        paths = [pathlib.Path(hub.hf_hub_download(repo, file, tqdm_class=bar)) for file in chosen]
        return paths[0] if chosen[0].endswith(".gguf") else paths[0].parent
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(2, "no such file, and no such repository on the hub", repo) from error
    except Exception as error:
        if isinstance(error, (AlloyForgeError, FileNotFoundError)) and not isinstance(
            error, errors.LocalEntryNotFoundError
        ):
            raise
        # The client passes on whatever its network library raises. Without the hub, what was fetched
        # before has to do.
        try:
            folder = pathlib.Path(hub.snapshot_download(repo, local_files_only=True))
            chosen = choose(
                name, [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            )
        except Exception:
            raise DownloadError(f"{name}: {_first_line(error)}") from error
        return folder / chosen[0] if chosen[0].endswith(".gguf") else folder


def choose(name: str, files: Sequence[str]) -> list[str]:
    """Picks what to fetch among a repository's files.

    A repository with a `config.json` and safetensors is the model itself and is taken as a folder,
    unless it calls itself a GGUF repository or a file is named. Of several GGUF files the best known
    4-bit mix is taken. All shards of a split file come together, the first one first.

    Raises:
        FileNotFoundError: the named file is not there.
        DownloadError: there is no model among the files.
    """
    repo, _, wanted = name.partition(":")
    models = [f for f in files if f.endswith(".gguf") and "mmproj" not in f.lower()]
    if wanted:
        if wanted in files:
            return _shards(wanted)
        tagged = sorted(f for f in models if _has_tag(f, wanted))
        if tagged and not wanted.endswith(".gguf"):
            return _shards(tagged[0])
        raise FileNotFoundError(2, f"no such file in the repository {repo}", wanted)
    weights = _weights(files)
    if weights and "config.json" in files and not (models and "gguf" in repo.lower()):
        return [f for f in files if f in _FOLDER_FILES] + weights
    if models:
        return _shards(min(models, key=_preference))
    raise DownloadError(
        f"{repo}: the repository holds neither a GGUF file nor a config.json with safetensors"
    )


def _weights(files: Sequence[str]) -> list[str]:
    """The safetensors that make the model: the index and its shards, or the one file."""
    top = [f for f in files if "/" not in f]
    if "model.safetensors.index.json" in top:
        shards = [f for f in top if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", f)]
        return ["model.safetensors.index.json", *(shards or [f for f in top if f.endswith(".safetensors")])]
    if "model.safetensors" in top:
        return ["model.safetensors"]
    found = [f for f in top if f.endswith(".safetensors")]
    return found if len(found) == 1 else []


def _shards(file: str) -> list[str]:
    """`file`, or all the shards that it is one of."""
    shard = _SHARD.search(file)
    if not shard:
        return [file]
    head, tail = file[: shard.start()], file[shard.end() :]
    return [f"{head}-{i:05}-of-{shard[2]}{tail}" for i in range(1, int(shard[2]) + 1)]


def _has_tag(file: str, tag: str) -> bool:
    """Whether a file's name says that it is of the type `tag`."""
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(tag)}(?![A-Za-z0-9_])", file, re.IGNORECASE) is not None


def _preference(file: str) -> tuple[int, int, str]:
    rank = next((i for i, tag in enumerate(_QUANT_ORDER) if _has_tag(file, tag)), len(_QUANT_ORDER))
    return rank, file.count("/"), file


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _bar(name: str, progress: Progress | None) -> Any:
    """A tqdm class that draws nothing and tells `progress` of the bytes instead."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._is_bytes = kwargs.get("unit") == "B"
            kwargs.update(disable=False, file=_Nowhere(), position=0, leave=False)
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)

        def display(self, *_: Any, **__: Any) -> bool:
            if progress and self._is_bytes and self.total:
                progress(name, int(self.n), int(self.total))
            return True

    return Bar


class _Nowhere:
    """A file that forgets."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""
