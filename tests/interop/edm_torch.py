"""EDM's networks in torch, written from their description, with the names that its checkpoints give their tensors.

Karras et al. 2022 (arXiv:2206.00364, table 1 and appendix F.2). A network is a dictionary of layers by their names, and
a walk over its levels; it is no copy of the published code, under whose licence it could not stand here.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    """A linear layer, or a convolution of odd size, of the given shape of its weight."""

    def __init__(self, *shape, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    def forward(self, x, around=0):
        if self.weight.ndim == 2:
            return F.linear(x, self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2 + around)


class Taps(nn.Module):
    """The buffer of a layer that halves or doubles, alone or beside a weight."""

    def __init__(self, taps, layer=None):
        super().__init__()
        taps = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", (torch.outer(taps, taps) / taps.sum() ** 2)[None, None])
        if layer is not None:
            self.weight, self.bias = layer.weight, layer.bias

    def halve(self, x, around=True):
        kernel = self.resample_filter.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, stride=2, padding=(kernel.shape[-1] - 1) // 2 if around else 0, groups=x.shape[1])

    def double(self, x):
        kernel = 4 * self.resample_filter.expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=(kernel.shape[-1] - 1) // 2, groups=x.shape[1])

    def forward(self, x, around=0):
        return x if not hasattr(self, "weight") else Layer.forward(self, x, around)


def norm(channels, eps):
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Block(nn.Module):
    def __init__(self, own, inputs, outputs, heads=0, change=None):
        super().__init__()
        self.own, self.heads, self.change = own, heads, change

        def changed(layer):
            return layer if change is None else Taps(own["taps"], layer)

        self.norm0, self.norm1 = norm(inputs, own["eps"]), norm(outputs, own["eps"])
        self.conv0 = changed(Layer(outputs, inputs, 3, 3))
        self.affine = Layer(outputs * (2 if own["scaled"] else 1), own["width"])
        self.conv1 = Layer(outputs, outputs, 3, 3)
        if inputs != outputs or (change and own["projects"]):
            self.skip = changed(Layer(outputs, inputs, 1, 1))
        elif change:
            self.skip = Taps(own["taps"])
        if heads:
            self.norm2 = norm(outputs, own["eps"])
            self.qkv, self.proj = Layer(3 * outputs, outputs, 1, 1), Layer(outputs, outputs, 1, 1)

    def forward(self, x, embedded):
        hidden = F.silu(self.norm0(x))
        if self.change:
            hidden, x = (getattr(layer, self.change)(part) for layer, part in ((self.conv0, hidden), (self.skip, x)))
        hidden, told = self.conv0(hidden), self.affine(embedded)[..., None, None]
        if self.own["scaled"]:
            scale, shift = told.tensor_split(2, dim=1)
            hidden = self.norm1(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm1(hidden + told)
        short = self.skip(x) if hasattr(self, "skip") else x
        x = (short + self.conv1(F.silu(hidden))) * self.own["gain"]
        if self.heads:
            n, channels, height, width = x.shape
            parts = self.qkv(self.norm2(x)).reshape(n, self.heads, channels // self.heads, 3, height * width)
            query, key, value = parts.movedim(3, 0).transpose(-1, -2)
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2)
            x = (x + self.proj(mixed.reshape(x.shape))) * self.own["gain"]
        return x


def waves(timestep, features, last):
    """Sines and cosines, of frequencies from 1 to 10^-4: that is the last, or the one after it."""
    half = features // 2
    angles = timestep[:, None] * 10.0 ** (-4 * torch.arange(half) / (half - 1 if last else half))
    return angles.sin(), angles.cos()


class Frequencies(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(features // 2))


class Network(nn.Module):
    """The two ways through the levels, which both networks have in common."""

    def __init__(self, config, own, first, heads, heads_up, middle_heads):
        super().__init__()
        # As the published classes keep their arguments.
        self.init_kwargs = dict(config)
        self.config, self.own = config, own
        multipliers = config.get("channel_mult", (1, 2))
        self.count, base = config.get("num_blocks", 1), config["model_channels"]
        resolutions = [config["img_resolution"] >> level for level in range(len(multipliers))]
        self.names = [f"{resolution}x{resolution}" for resolution in resolutions]
        self.widths = [base * multiplier for multiplier in multipliers]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        channels, read = first, [first]
        for level, (name, width) in enumerate(zip(self.names, self.widths, strict=True)):
            if level == 0:
                self.enc[f"{name}_conv"] = Layer(first, config["in_channels"], 3, 3)
            else:
                self.enc[f"{name}_down"] = Block(own, channels, channels, change="halve")
                read.append(channels)
            for number in range(self.count):
                self.enc[f"{name}_block{number}"] = Block(own, channels, width, heads(level, width))
                channels = width
                read.append(channels)
        for level in reversed(range(len(self.names))):
            name, width = self.names[level], self.widths[level]
            if level == len(self.names) - 1:
                self.dec[f"{name}_in0"] = Block(own, channels, channels, middle_heads(channels))
                self.dec[f"{name}_in1"] = Block(own, channels, channels)
            else:
                self.dec[f"{name}_up"] = Block(own, channels, channels, change="double")
            for number in range(self.count + 1):
                self.dec[f"{name}_block{number}"] = Block(
                    own, channels + read.pop(), width, heads_up(level, number, width)
                )
                channels = width

    def down(self, x, embedded, joined):
        states = []
        for level, name in enumerate(self.names):
            x = self.enc[f"{name}_down"](x, embedded) if level else self.enc[f"{name}_conv"](x)
            x = joined(name, x) if level else x
            states.append(x)
            for number in range(self.count):
                x = self.enc[f"{name}_block{number}"](x, embedded)
                states.append(x)
        return states

    def up(self, x, states, embedded, after):
        for name in reversed(self.names):
            for part in ("in0", "in1", "up"):
                x = self.dec[f"{name}_{part}"](x, embedded) if f"{name}_{part}" in self.dec else x
            for number in range(self.count + 1):
                x = self.dec[f"{name}_block{number}"](torch.cat((x, states.pop()), dim=1), embedded)
            after(name, x)
        return x


class SongUNet(Network):
    def __init__(self, **config):
        base, taps = config["model_channels"], config.get("resample_filter", (1, 1))
        width, features = base * config.get("channel_mult_emb", 4), base * config.get("channel_mult_noise", 1)
        own = {"taps": taps, "eps": 1e-6, "scaled": False, "width": width, "projects": True, "gain": math.sqrt(0.5)}
        attended = [config["img_resolution"] >> n in config.get("attn_resolutions", ()) for n in range(9)]
        last = config.get("num_blocks", 1)
        super().__init__(
            config,
            own,
            base,
            lambda level, _: int(attended[level]),
            lambda level, number, _: int(attended[level] and number == last),
            lambda _: 1,
        )
        if config.get("embedding_type") == "fourier":
            self.map_noise = Frequencies(features)
        if labels := config.get("label_dim"):
            self.map_label = Layer(features, labels)
        if parameters := config.get("augment_dim"):
            self.map_augment = Layer(features, parameters, bias=False)
        self.map_layer0, self.map_layer1 = Layer(width, features), Layer(width, width)
        beside, outputs = config["in_channels"], config["out_channels"]
        for level, name in enumerate(self.names):
            if level and config.get("encoder_type") == "skip":
                self.enc[f"{name}_aux_down"] = Taps(taps)
                self.enc[f"{name}_aux_skip"] = Layer(self.widths[level - 1], beside, 1, 1)
            if level and config.get("encoder_type") == "residual":
                self.enc[f"{name}_aux_residual"] = Taps(taps, Layer(self.widths[level - 1], beside, 3, 3))
                beside = self.widths[level - 1]
            if level < len(self.names) - 1 and config.get("decoder_type") == "skip":
                self.dec[f"{name}_aux_up"] = Taps(taps)
            if level == 0 or config.get("decoder_type") == "skip":
                self.dec[f"{name}_aux_norm"] = norm(self.widths[level], 1e-6)
                self.dec[f"{name}_aux_conv"] = Layer(outputs, self.widths[level], 3, 3)

    def forward(self, x, timestep, labels=None, augmentation=None):
        if hasattr(self, "map_noise"):
            angles = timestep[:, None] * 2 * math.pi * self.map_noise.freqs
            features = torch.cat((angles.sin(), angles.cos()), dim=1)
        else:
            features = torch.cat(waves(timestep, self.map_layer0.weight.shape[1], True), dim=1)
        if hasattr(self, "map_label"):
            features = features + self.map_label(labels * math.sqrt(labels.shape[1]))
        if augmentation is not None:
            features = features + self.map_augment(augmentation)
        embedded = F.silu(self.map_layer1(F.silu(self.map_layer0(features))))
        beside, output = x, None

        def joined(name, hidden):
            nonlocal beside
            if f"{name}_aux_skip" in self.enc:
                beside = self.enc[f"{name}_aux_down"].halve(beside)
                return hidden + self.enc[f"{name}_aux_skip"](beside)
            if f"{name}_aux_residual" in self.enc:
                layer = self.enc[f"{name}_aux_residual"]
                # One filter: it reads what the convolution gives outside of the image too.
                reach = (layer.resample_filter.shape[-1] - 1) // 2
                hidden = beside = (hidden + layer.halve(layer(beside, reach), around=False)) / math.sqrt(2)
            return hidden

        def after(name, hidden):
            nonlocal output
            output = self.dec[f"{name}_aux_up"].double(output) if f"{name}_aux_up" in self.dec else output
            if f"{name}_aux_conv" in self.dec:
                more = self.dec[f"{name}_aux_conv"](F.silu(self.dec[f"{name}_aux_norm"](hidden)))
                output = more if output is None else output + more

        states = self.down(x, embedded, joined)
        self.up(states[-1], states, embedded, after)
        return output


class DhariwalUNet(Network):
    def __init__(self, **config):
        base = config["model_channels"]
        width = base * config.get("channel_mult_emb", 4)
        own = {"taps": (1, 1), "eps": 1e-5, "scaled": True, "width": width, "projects": False, "gain": 1.0}
        attended = [config["img_resolution"] >> n in config.get("attn_resolutions", ()) for n in range(9)]

        def heads(level, channels):
            return channels // 64 if attended[level] else 0

        super().__init__(
            config,
            own,
            base * config["channel_mult"][0],
            heads,
            lambda level, _, channels: heads(level, channels),
            lambda channels: channels // 64,
        )
        self.map_layer0, self.map_layer1 = Layer(width, base), Layer(width, width)
        if parameters := config.get("augment_dim"):
            self.map_augment = Layer(base, parameters, bias=False)
        if labels := config.get("label_dim"):
            self.map_label = Layer(width, labels, bias=False)
        self.out_norm = norm(self.widths[0], 1e-5)
        self.out_conv = Layer(config["out_channels"], self.widths[0], 3, 3)

    def forward(self, x, timestep, labels=None, augmentation=None):
        sines, cosines = waves(timestep, self.config["model_channels"], False)
        features = torch.cat((cosines, sines), dim=1)
        features = features if augmentation is None else features + self.map_augment(augmentation)
        features = self.map_layer1(F.silu(self.map_layer0(features)))
        embedded = F.silu(features if labels is None else features + self.map_label(labels))
        states = self.down(x, embedded, lambda name, hidden: hidden)
        x = self.up(states[-1], states, embedded, lambda name, hidden: None)
        return self.out_conv(F.silu(self.out_norm(x)))


class Preconditioned(nn.Module):
    """A network that gives the denoised image at x = x0 + sigma noise."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, sigma, labels=None):
        return self.denoised(x, torch.as_tensor([sigma], dtype=torch.float32), labels)


class EDMPrecond(Preconditioned):
    sigma_data, sigma_min, sigma_max = 0.7, 0, math.inf

    def denoised(self, x, sigma, labels):
        total = (sigma**2 + self.sigma_data**2).sqrt()
        output = self.model(x / total, sigma.log() / 4, labels)
        return (self.sigma_data / total) ** 2 * x + sigma * self.sigma_data / total * output


class VPPrecond(Preconditioned):
    beta_d, beta_min, M, epsilon_t = 19.0, 0.2, 1000, 1e-5

    def denoised(self, x, sigma, labels):
        # The time at which beta_min t + beta_d t^2 / 2 is log(1 + sigma^2).
        integral = (1 + sigma.double() ** 2).log()
        time = ((self.beta_min**2 + 2 * self.beta_d * integral).sqrt() - self.beta_min) / self.beta_d
        return x - sigma * self.model(x / (1 + sigma**2).sqrt(), (self.M - 1) * time.float(), labels)


class VEPrecond(Preconditioned):
    sigma_min, sigma_max = 0.02, 100

    def denoised(self, x, sigma, labels):
        return x + sigma * self.model(x, (sigma / 2).log(), labels)


class iDDPMPrecond(Preconditioned):
    C_1, C_2, M = 0.001, 0.008, 50

    def levels(self):
        """sigma at k = 1 ... M, from betas of at most 1 - C_1."""
        kept = torch.cos(
            (torch.arange(self.M + 1, dtype=torch.float64) / self.M + self.C_2) / (1 + self.C_2) * math.pi / 2
        )
        shares = (kept[1:] ** 2 / kept[:-1] ** 2).clip(min=self.C_1)
        return (1 / shares.cumprod(0) - 1).sqrt()

    def denoised(self, x, sigma, labels):
        step = (self.levels() - sigma).abs().argmin()
        output = self.model(x / (1 + sigma**2).sqrt(), step[None].float(), labels)
        return x - sigma * output[:, : x.shape[1]]
