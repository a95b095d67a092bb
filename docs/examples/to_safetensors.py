"""Turn a published checkpoint of EDM or ADM into a folder that `sgm.load` reads. Run it once, where torch is installed.

    git clone https://github.com/NVlabs/edm
    PYTHONPATH=edm python docs/examples/to_safetensors.py edm edm-cifar10-32x32-uncond-vp.pkl cifar10
    python docs/examples/to_safetensors.py adm 256x256_diffusion_uncond.pt imagenet256

It needs torch and safetensors, and not sgm. The folder has `config.json`, `scheduler_config.json` and
`diffusion_pytorch_model.safetensors`; images are in [-1, 1], as in both projects: pass
`units=sgm.Units(127.5, 127.5)` to `sgm.interop.diffusers.load` for grey levels 0 ... 255.

Reading a checkpoint of EDM RUNS CODE THAT IS IN THE FILE: it is a pickle, which holds the source of its network too.
Read one that you trust alone, as from NVIDIA's own server, and compare its checksum. Those of ADM are read by
`torch.load(weights_only=True)`, which runs none.

ADM's files do not say what network they are of. Those that were published are known by their names; of another, such as
one that you have trained, pass the flags of its training:

    python docs/examples/to_safetensors.py adm model.pt mine --flags "--image_size 64 --learn_sigma True"
"""

import argparse
import json
import pickle
import shlex
from pathlib import Path

import torch
from safetensors.torch import save_file

STEM = "diffusion_pytorch_model"

# What EDM's preconditionings keep of their arguments, as far as it says what the network is told and means.
PRECONDITIONINGS = {
    "EDMPrecond": ("sigma_data", "sigma_min", "sigma_max"),
    "VPPrecond": ("beta_d", "beta_min", "M", "epsilon_t"),
    "VEPrecond": ("sigma_min", "sigma_max"),
    "iDDPMPrecond": ("C_1", "C_2", "M"),
}
# The noise levels of EDM's sampler, inside of those that a network takes.
SIGMAS = 0.002, 80.0

# The flags of ADM's published checkpoints, beside those that all have.
_COMMON = "--learn_sigma True --resblock_updown True --use_scale_shift_norm True --attention_resolutions 32,16,8"
_LABELS = f"{_COMMON} --class_cond True"
_LARGE = "--num_channels 256 --num_res_blocks 2 --num_head_channels 64"
_LSUN = f"{_COMMON} --image_size 256 {_LARGE} --dropout 0.1"
PUBLISHED = {
    "64x64_diffusion": f"{_LABELS} --image_size 64 --num_channels 192 --num_res_blocks 3 --num_head_channels 64 "
    "--dropout 0.1 --noise_schedule cosine --use_new_attention_order True",
    "128x128_diffusion": f"{_LABELS} --image_size 128 --num_channels 256 --num_res_blocks 2 --num_heads 4",
    "256x256_diffusion": f"{_LABELS} --image_size 256 {_LARGE}",
    "256x256_diffusion_uncond": f"{_COMMON} --image_size 256 {_LARGE}",
    "512x512_diffusion": f"{_LABELS} --image_size 512 {_LARGE}",
    "lsun_bedroom": _LSUN,
    "lsun_cat": _LSUN,
    "lsun_horse": _LSUN,
    "lsun_horse_nodropout": f"{_COMMON} --image_size 256 {_LARGE}",
}
CHANNEL_MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
CLASSES = 1000


def convert_edm(path: Path, folder: Path) -> None:
    """Convert a pickle of EDM, of which the averaged network is taken."""
    with open(path, "rb") as file:
        preconditioned = pickle.load(file)["ema"]
    kind, network = type(preconditioned).__name__, preconditioned.model
    if kind not in PRECONDITIONINGS:
        raise SystemExit(f"{path}: its class is {kind}; what is known is {', '.join(PRECONDITIONINGS)}.")
    scheduler = {"_class_name": kind} | {name: getattr(preconditioned, name) for name in PRECONDITIONINGS[kind]}
    if kind == "EDMPrecond":
        scheduler["sigma_min"] = max(scheduler["sigma_min"], SIGMAS[0])
        scheduler["sigma_max"] = min(scheduler["sigma_max"], SIGMAS[1])
    config = {"_class_name": type(network).__name__, **network.init_kwargs}
    tensors = network.state_dict()
    # They are made of a field of the config, and not learned.
    taps = torch.tensor(config.get("resample_filter", [1, 1]), dtype=torch.float32)
    made = torch.outer(taps, taps) / taps.sum() ** 2
    for name in [name for name in tensors if name.endswith("resample_filter")]:
        if not torch.equal(tensors.pop(name).cpu().squeeze().float(), made):
            raise SystemExit(
                f"{path}: {name} is not what resample_filter = {taps.tolist()} makes; its network is another."
            )
    write(folder, config, scheduler, tensors)


def convert_adm(path: Path, folder: Path, flags: str | None) -> None:
    """Convert a dictionary of tensors of ADM."""
    if flags is None and path.stem not in PUBLISHED:
        raise SystemExit(
            f"{path}: what network it is of is not known from its name; pass --flags, those of its training. Known are "
            f"{', '.join(PUBLISHED)}."
        )
    config, scheduler = read_flags(PUBLISHED[path.stem] if flags is None else flags)
    write(folder, config, scheduler, torch.load(path, map_location="cpu", weights_only=True))


def read_flags(flags: str) -> tuple[dict, dict]:
    """The network and the scheduler that the flags of guided-diffusion describe."""
    parser = argparse.ArgumentParser(prog="--flags", allow_abbrev=False)
    numbers = {"image_size": 64, "num_channels": 128, "num_res_blocks": 2, "num_heads": 4, "diffusion_steps": 1000}
    for name, default in (numbers | {"num_heads_upsample": -1, "num_head_channels": -1}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--attention_resolutions", default="16,8")
    parser.add_argument("--channel_mult", default="")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--noise_schedule", choices=("linear", "cosine"), default="linear")
    used = {"class_cond": False, "use_scale_shift_norm": True, "resblock_updown": False, "learn_sigma": False}
    used |= {"use_new_attention_order": False, "predict_xstart": False, "rescale_timesteps": False}
    # Of precision, memory and the loss of the training, which say nothing of what the network is.
    without_effect = dict.fromkeys(("use_fp16", "use_checkpoint", "use_kl", "rescale_learned_sigmas"), False)
    for name, default in (used | without_effect).items():
        parser.add_argument(f"--{name}", type=_flag, default=default)
    given = parser.parse_args(shlex.split(flags))
    if given.rescale_timesteps and given.diffusion_steps != 1000:
        parser.error("rescale_timesteps with another number of steps than 1000 is not known")
    if not given.channel_mult and given.image_size not in CHANNEL_MULT:
        parser.error(f"channel_mult must be given for image_size {given.image_size}")
    multipliers = given.channel_mult.split(",") if given.channel_mult else CHANNEL_MULT[given.image_size]
    config = {
        "_class_name": "UNetModel",
        "image_size": given.image_size,
        "in_channels": 3,
        "model_channels": given.num_channels,
        "out_channels": 6 if given.learn_sigma else 3,
        "num_res_blocks": given.num_res_blocks,
        "attention_resolutions": [given.image_size // int(size) for size in given.attention_resolutions.split(",")],
        "dropout": given.dropout,
        "channel_mult": [float(count) for count in multipliers],
        "num_classes": CLASSES if given.class_cond else None,
    }
    names = ("num_heads", "num_head_channels", "num_heads_upsample", "use_scale_shift_norm", "resblock_updown")
    config |= {name: getattr(given, name) for name in (*names, "use_new_attention_order")}
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": given.diffusion_steps,
        "beta_schedule": {"linear": "linear", "cosine": "squaredcos_cap_v2"}[given.noise_schedule],
        "beta_start": 0.1 / given.diffusion_steps,
        "beta_end": 20 / given.diffusion_steps,
        "prediction_type": "sample" if given.predict_xstart else "epsilon",
        "variance_type": "learned_range" if given.learn_sigma else "fixed_large",
        "clip_sample": True,
    }
    return config, scheduler


def write(folder: Path, config: dict, scheduler: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write a folder in the layout of diffusers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in {"config.json": config, "scheduler_config.json": scheduler}.items():
        (folder / name).write_text(json.dumps(fields, indent=2, allow_nan=False) + "\n")
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, folder / f"{STEM}.safetensors", metadata={"format": "pt"})
    print(f"{folder}: {len(whole)} tensors of a {config['_class_name']}.")


def _flag(word):
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} is neither True nor False")
    return word.lower() == "true"


def main(words: list[str] | None = None) -> None:
    """Convert the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("edm", "adm"), help="project that the checkpoint is of")
    parser.add_argument("checkpoint", type=Path, help="its file: a .pkl of EDM, a .pt of ADM")
    parser.add_argument("folder", type=Path, help="folder that is written")
    parser.add_argument("--flags", help="flags of the training of a network of ADM that was not published")
    given = parser.parse_args(words)
    if not given.checkpoint.is_file():
        parser.error(f"checkpoint {given.checkpoint} is no file; pass one that you have downloaded")
    if given.kind == "adm":
        convert_adm(given.checkpoint, given.folder, given.flags)
    elif given.flags is not None:
        parser.error("--flags is of adm; a pickle of EDM says what its network is")
    else:
        convert_edm(given.checkpoint, given.folder)


if __name__ == "__main__":
    main()
