"""The released networks at sizes that fit a test, written out with their documented names and torch's own modules."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from spectrakit.models import alignment, spectrum_transformer, xp_autoencoder

D, LATENT = 12, 6                                                   # 3 heads of 4 in the encoder, 2 in the LRS head (and half of them in the private one)
LRS = replace(spectrum_transformer.PRESETS["paper"], d_model=D, n_layer=2, n_head=3, d_mlp=4 * D, n_positions=150)
XP_TRANSFORMER = replace(spectrum_transformer.XP_PRESETS["paper"], d_model=D, n_layer=2, n_head=3, d_mlp=4 * D)
XP = xp_autoencoder.AutoencoderConfig(n_pix=343, d_hidden=10, widening=3, n_block=2, d_latent=LATENT)
PAIR = replace(alignment.PRESETS["paper"], d_embed=D, d_shared=8, d_private=4, n_head=2, d_wide=9)
KINDS = ("lrs", "xp_transformer", "xp", "base", "pr", "split")


class TheirAttention(nn.Module):
    def __init__(self, d, n_head):
        super().__init__()
        self.n_head = n_head
        self.q_proj, self.kv_proj, self.out_proj = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(self, x):
        split = lambda t: t.unflatten(-1, (self.n_head, -1)).transpose(1, 2)                                           # noqa: E731
        k, v = self.kv_proj(x).chunk(2, dim=-1)
        q = split(self.q_proj(x))
        y = F.scaled_dot_product_attention(q * q.shape[-1] ** -0.5, split(k), split(v))                # scaled here, and again inside
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TheirBlock(nn.Module):
    def __init__(self, d, n_head):
        super().__init__()
        self.attention, self.ln1, self.ln2 = TheirAttention(d, n_head), nn.LayerNorm(d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d), nn.Dropout(0))

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class TheirTransformer(nn.Module):
    def __init__(self, width, max_len):
        super().__init__()
        self.width = width
        self.data_embed, self.position_embed = nn.Linear(width, D), nn.Embedding(max_len, D)
        self.blocks = nn.ModuleList(TheirBlock(D, 3) for _ in range(2))
        self.final_layernorm, self.head = nn.LayerNorm(D), nn.Linear(D, width)

    def forward(self, flux):
        mean, std = flux.mean(1, keepdim=True), flux.std(1, keepdim=True)
        x = (flux - mean) / std
        x = x.unfold(1, 20, 10) if self.width == 21 else x[..., None]                                # all full windows: 145 of 1462 pixels
        x = F.pad(x, (self.width - x.shape[2], 0, 1, 0))
        x[:, 0, :1 if self.width == 21 else 2] = std.log10() if self.width == 21 else torch.cat([mean, std], 1)
        x = self.data_embed(x) + self.position_embed(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.final_layernorm(x)


class TheirBottle(nn.Module):
    def __init__(self):
        super().__init__()
        block = lambda: nn.ModuleDict({"norm": nn.LayerNorm(10), "mlp": nn.Sequential(nn.Linear(10, 30), nn.GELU(), nn.Dropout(0), nn.Linear(30, 10))})  # noqa: E731
        self.input_proj, self.output_proj = nn.Linear(345, 10), nn.Linear(10, 345)
        self.encoder_blocks, self.decoder_blocks = nn.ModuleList([block(), block()]), nn.ModuleList([block(), block()])
        self.bottleneck_down, self.bottleneck_norm, self.bottleneck_up = nn.Linear(10, LATENT), nn.LayerNorm(LATENT), nn.Linear(LATENT, 10)

    def forward(self, flux):
        mean, std = flux.mean(1, keepdim=True), flux.std(1, keepdim=True)
        h = self.input_proj(torch.cat([mean, std, (flux - mean) / std], 1))
        for block in self.encoder_blocks:
            h = block["mlp"](block["norm"](h))
        return self.bottleneck_norm(self.bottleneck_down(h))


def their_mlp(d):
    return nn.ModuleDict({"encoder": nn.Linear(d, 4 * d), "decoder": nn.Linear(4 * d, d)})


def apply_mlp(mlp, x):
    return x + mlp["decoder"](F.gelu(mlp["encoder"](x)))


class TheirCrossAttention(nn.Module):
    """Where d is the tokens' width (base, pr), torch keeps q, k and v in one tensor; otherwise (split) in three."""

    def __init__(self, d, n_head):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, d))
        self.multihead_attn = nn.MultiheadAttention(d, n_head, batch_first=True, kdim=D, vdim=D)
        self.layernorm = nn.LayerNorm(d)

    def forward(self, tokens):
        return self.layernorm(self.multihead_attn(self.query.repeat(len(tokens), 1, 1), tokens, tokens)[0])[:, 0]


def their_perceptron(d):
    return nn.Linear(LATENT, d), nn.Sequential(nn.Linear(d, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, d), nn.LayerNorm(d), nn.Dropout(0))


class TheirLRS(nn.Module):
    def __init__(self, split):
        super().__init__()
        self.backbone = TheirTransformer(21, 150)
        if split:
            self.shared_attention, self.shared_mlp = TheirCrossAttention(8, 2), their_mlp(8)
            self.private_attention, self.private_mlp = TheirCrossAttention(4, 1), their_mlp(4)
        else:
            self.cross_attention, self.mlp = TheirCrossAttention(D, 2), their_mlp(D)

    def forward(self, flux):
        tokens = self.backbone(flux)
        if hasattr(self, "mlp"):
            return (apply_mlp(self.mlp, self.cross_attention(tokens)),)
        return apply_mlp(self.shared_mlp, self.shared_attention(tokens)), apply_mlp(self.private_mlp, self.private_attention(tokens))


class TheirXP(nn.Module):
    def __init__(self, split):
        super().__init__()
        self.backbone = TheirBottle()
        for part, d in ((("shared_", 8), ("private_", 4)) if split else (("", D),)):
            projection, feature = their_perceptron(d)
            setattr(self, f"{part}projection", projection)
            setattr(self, f"{part}feature_mlp", feature)
            setattr(self, f"{part}mlp", their_mlp(d))

    def forward(self, flux):
        latent = self.backbone(flux)
        parts = ("",) if hasattr(self, "mlp") else ("shared_", "private_")
        return tuple(apply_mlp(getattr(self, f"{p}mlp"), getattr(self, f"{p}feature_mlp")(getattr(self, f"{p}projection")(latent))) for p in parts)


class TheirDecoder(nn.Module):
    def __init__(self, d, widths, n_pix):
        super().__init__()
        sizes, layers = [d, *(d * w for w in widths)], []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(a, b), nn.GELU(), nn.BatchNorm1d(b), nn.Dropout(0.1)]
        self.decoder = nn.Sequential(*layers, nn.Linear(sizes[-1], n_pix))

    def forward(self, shared, *_):
        return self.decoder(shared)


class TheirJoined(nn.Module):
    def __init__(self, n_pix):
        super().__init__()
        self.shared_proj, self.private_proj = nn.Linear(8, n_pix), nn.Linear(4, n_pix)
        self.final_layer = nn.Sequential(nn.Linear(2 * n_pix, 2 * n_pix), nn.GELU(), nn.Linear(2 * n_pix, n_pix))

    def forward(self, shared, private):
        return self.final_layer(torch.cat([self.shared_proj(shared), self.private_proj(private)], -1))


class TheirPair(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.gaia_xp_encoder, self.lamost_lrs_encoder = TheirXP(kind == "split"), TheirLRS(kind == "split")
        d = 8 if kind == "split" else D
        if kind != "base":
            self.gaia_xp_cross_decoder, self.lamost_lrs_cross_decoder = TheirDecoder(d, (4, 2, 1), 343), TheirDecoder(d, (4, 4, 4), 1462)
        if kind == "pr":
            self.gaia_xp_decoder, self.lamost_lrs_decoder = TheirDecoder(d, (4, 2, 1), 343), TheirDecoder(d, (4, 4, 4), 1462)
        elif kind == "split":
            self.gaia_xp_decoder, self.lamost_lrs_decoder = TheirJoined(343), TheirJoined(1462)


def theirs(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        single = {"lrs": lambda: TheirTransformer(21, 150), "xp_transformer": lambda: TheirTransformer(3, 350), "xp": TheirBottle}
        network = single.get(kind, lambda: TheirPair(kind))()
        for p in [*network.parameters(), *(b for n, b in network.named_buffers() if "running" in n)]:
            p.data.add_(0.1 * torch.rand_like(p))                   # norms away from one and zero
    return network.eval().requires_grad_(False)
