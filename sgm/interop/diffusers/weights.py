"""The files of the weights of a network of diffusers."""

from pathlib import Path

from sgm.interop.diffusers.description import INDEX, STEM, read_json
from sgm.interop.diffusers.network_config import OF_DIFFUSERS
from sgm.interop.hub import Source

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def find_weights(source: Source, inside: str, variant: str | None, cls: type) -> list[Path]:
    """Find the files of a network's weights: one, or those that an index lists. Those of the hub are downloaded.

    A folder of this computer that has both is refused, since one of them is of old. Of a model of the hub the index is
    read, as diffusers does.

    Arguments:
        source: Where the model lies.
        inside: Folder of the network in it.
        variant: Variant of the files.
        cls: Class of the network, for errors.

    Raises:
        ValueError: for files that are not there, or pickles, with the remedy, and for a file beside an index.
    """
    folder, middle = source.folder / inside, "" if variant is None else f".{variant}"
    # The second and the third were written by earlier releases.
    names = {f"{STEM}.safetensors.index{middle}.json", f"{STEM}{middle}.safetensors.index.json"}
    names.add(f"{STEM}.safetensors{middle}.index.json")
    index = next((folder / name for name in sorted(names) if (folder / name).is_file()), None)
    whole = f"{STEM}{middle}.safetensors"
    if index is not None and source.name is None and (folder / whole).is_file():
        raise ValueError(
            f"load: {folder} has both {whole} and {index.name}, and one of them is of other weights; delete the file, "
            "or the index and what it lists."
        )
    files = [whole] if index is None else _shards(index)
    wanted = [file if inside == "." else f"{inside}/{file}" for file in files]
    folder = source.with_files(wanted) / inside
    if all((folder / file).is_file() for file in files):
        return [folder / file for file in files]
    raise ValueError(f"load: {_no_weights(source, inside, folder, files, variant, cls)}")


def _shards(index):
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ValueError(f"{index}: weight_map = {shards!r}, which is not a file for each tensor; restore it.")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index}: it names the file {name}, which lies elsewhere; restore it.")
    return names


def _no_weights(source, inside, folder, files, variant, cls):
    missing = [file for file in files if not (folder / file).is_file()]
    wanted = f"{source.at(inside)} has no {missing[0]}"
    variants = sorted({path.name.split(".")[1].split("-")[0] for path in folder.glob(f"{STEM}.*.safetensors")})
    if len(files) == 1 and variants and variant not in variants:
        return f"{wanted}; pass variant={variants[0]!r}, which it has."
    if len(files) == 1 and variant is not None and (folder / f"{STEM}.safetensors").is_file():
        return f"{wanted}; leave variant out, since it has none."
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in _PICKLES]
    if source.name is not None:
        return (
            f"{wanted}. Where its weights are a .bin alone, that is a pickle, which can run code when it is read, and "
            f"is not read: pass a revision with safetensors, or convert it. {_conversion(source, cls)}"
        )
    if pickles and pickles[0].endswith(".bin") and cls in OF_DIFFUSERS:
        place, name = str(folder), cls.__name__
        return (
            f"{wanted}, but {pickles[0]}, a pickle, which can run code when it is read. Convert it once, where torch "
            f"and diffusers are installed: from diffusers import {name}; {name}.from_pretrained({place!r}, "
            f"use_safetensors=False).save_pretrained({place!r}, safe_serialization=True)"
        )
    if pickles:
        return (
            f"{wanted}, but {pickles[0]}, a pickle, which can run code when it is read. Convert it once, where torch "
            "is installed: import torch, safetensors.torch; safetensors.torch.save_file("
            f"torch.load({str(folder / pickles[0])!r}, weights_only=True), {str(folder / files[0])!r})"
        )
    return f"{wanted}; download it again, or restore it."


def _conversion(source, cls):
    """How a model of the hub becomes a folder that loads: with its scheduler, where it is a pipeline."""
    is_pipeline = (source.folder / INDEX).is_file()
    name = "DiffusionPipeline" if is_pipeline else cls.__name__
    revision = "" if source.revision is None else f"revision={source.revision!r}, "
    scheduler = "" if is_pipeline else ", with scheduler=, which a network alone does not have"
    return (
        f"Where torch and diffusers are installed: from diffusers import {name}; {name}.from_pretrained("
        f'{source.name!r}, {revision}use_safetensors=False).save_pretrained("folder"). Then load "folder"{scheduler}.'
    )
