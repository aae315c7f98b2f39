"""Networks that published audio metrics are computed with. Their weights are the user's; nothing here fetches any.

- `VGGish`: features of the Frechet audio distance, in torch's usual layout of these weights.
- `Tagger`: PANNs' Cnn14 at 16 kHz, whose class probabilities the KL divergence compares.
- `clap_scores`: how well sounds and texts agree, by a CLAP model of transformers in a local folder.

References:
    Kilgour et al., Frechet Audio Distance (2019); Hershey et al., CNN Architectures for Large-Scale Audio
    Classification (2017); Kong et al., PANNs (2020), table 1; Wu et al., Large-scale CLAP (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from perrin.errors import InvalidInput, ModelError
from perrin.models.tensors import read_tensors

__all__ = ["Tagger", "VGGish", "clap_scores", "kl_divergence"]

RATE = 16000


def _fitted(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ModelError(f"these are no weights of {what}: {str(error).splitlines()[-1].strip()[:200]}") from None
    network.eval().requires_grad_(False)


class VGGish(nn.Module):
    """Sounds (B, samples) at 16 kHz to features (B * pieces, 128), a piece being 0.96 s.

    Args:
        file: a state of ``features.*`` and ``embeddings.*``, as safetensors or a checkpoint of torch.
    """

    WINDOW, HOP, SIZE, BANDS, FRAMES = 400, 160, 512, 64, 96

    def __init__(self, file: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0):
            layers += [nn.MaxPool2d(2)] if not width else [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width or before
        self.features = nn.Sequential(*layers)
        widths = (512 * 4 * 6, 4096, 4096, 128)
        self.embeddings = nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))
        state = {name: tensor for name, tensor in read_tensors(file).items() if not name.startswith("pproc")}
        _fitted(self, state, "VGGish")

    @torch.inference_mode()
    def forward(self, sound: Tensor) -> Tensor:
        """Features of every whole piece, the pieces of one sound after each other."""
        h = self.features(self.pieces(sound)[:, None])
        return cast(Tensor, self.embeddings(h.permute(0, 2, 3, 1).flatten(1)))

    def pieces(self, sound: Tensor) -> Tensor:
        """(B * pieces, 96, 64) logarithms of mel magnitudes, 125 to 7,500 Hz, plus 0.01."""
        window = torch.hann_window(self.WINDOW, periodic=True, device=sound.device)
        frames = sound.unfold(-1, self.WINDOW, self.HOP) * window
        size = torch.fft.rfft(frames, self.SIZE).abs()
        bank = melscale_fbanks(self.SIZE // 2 + 1, 125.0, 7500.0, self.BANDS, RATE).to(size)
        logs: Tensor = (size @ bank + 0.01).log()
        if logs.shape[1] < self.FRAMES:
            raise InvalidInput("sound", f"{sound.shape[-1]} samples", "at least 0.96 s of 16 kHz")
        return logs.unfold(1, self.FRAMES, self.FRAMES).transpose(2, 3).flatten(0, 1)


class _Pair(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Tagger(nn.Module):
    """Sounds (B, samples) at 16 kHz to probabilities of AudioSet's 527 classes (B, classes).

    Args:
        file: the checkpoint ``Cnn14_16k``, or a state of it.
    """

    WINDOW, HOP, BANDS = 512, 160, 64

    def __init__(self, file: Path) -> None:
        super().__init__()
        state = {name.removeprefix("model."): tensor for name, tensor in read_tensors(file).items()}
        missing = {"logmel_extractor.melW", "fc_audioset.weight"} - state.keys()
        if missing:
            raise ModelError(f"these are no weights of Cnn14: {', '.join(sorted(missing))} missing")
        bank = state.pop("logmel_extractor.melW")
        state = {name: tensor for name, tensor in state.items() if not name.startswith("spectrogram_extractor")}
        if bank.shape != (self.WINDOW // 2 + 1, self.BANDS):
            wanted = f"{self.WINDOW // 2 + 1} x {self.BANDS}, of Cnn14_16k"
            raise ModelError(f"a mel bank of {tuple(bank.shape)}, wanted {wanted}")
        self.register_buffer("bank", bank.float(), persistent=False)
        self.bn0 = nn.BatchNorm2d(self.BANDS)
        for number, (a, b) in enumerate(((1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)), 1):
            setattr(self, f"conv_block{number}", _Pair(a, b))
        self.fc1, self.fc_audioset = nn.Linear(2048, 2048), nn.Linear(2048, len(state["fc_audioset.weight"]))
        _fitted(self, state, "Cnn14")

    @torch.inference_mode()
    def forward(self, sound: Tensor) -> Tensor:
        """Probabilities."""
        window = torch.hann_window(self.WINDOW, device=sound.device)
        spectrum = torch.stft(sound, self.WINDOW, self.HOP, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.abs().square().transpose(1, 2)
        x = 10 * (power @ cast(Tensor, self.bank)).clamp(min=1e-10).log10()
        x = self.bn0(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)[:, None]
        for number in range(1, 7):
            x = getattr(self, f"conv_block{number}")(x)
            x = F.avg_pool2d(x, 2) if number < 6 else x
        x = x.mean(3)
        return torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.amax(2) + x.mean(2)))))


def kl_divergence(real: Tensor, made: Tensor) -> float:
    """Mean KL(real || made) of class probabilities (N, classes), pair by pair, each brought to a sum of 1."""
    if real.shape != made.shape:
        raise InvalidInput("probabilities", f"{tuple(real.shape)} and {tuple(made.shape)}", "as many of each, in pairs")
    p, q = (x.double().clamp(min=1e-8) for x in (real, made))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return float((p * (p / q).log()).sum(1).mean())


def clap_scores(folder: Path, sounds: Tensor, texts: Sequence[str], rate: int = RATE) -> Tensor:
    """(N,) cosines between sounds (N, samples) and their texts, by the CLAP model in ``folder``.

    Raises:
        ModelError: the folder holds none.
    """
    from torchaudio.functional import resample
    from transformers import AutoProcessor, ClapModel

    try:
        model: Any = ClapModel.from_pretrained(folder, local_files_only=True).eval()
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no CLAP model: {str(error).splitlines()[0][:200]}") from None
    wanted = int(processor.feature_extractor.sampling_rate)
    heard = [sound.numpy() for sound in resample(sounds, rate, wanted)]
    given = processor(text=list(texts), audio=heard, sampling_rate=wanted, return_tensors="pt", padding=True)
    with torch.inference_mode():
        answer = model(**given)
    return F.cosine_similarity(answer.audio_embeds, answer.text_embeds)
