"""What the moving figures show, computed live on a picture of the reader's choice (floor 2).

Each needs a running kernel, and stands in a chapter below a figure that needs none. ipywidgets is loaded by the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cxr_tutorial import losses, metrics
from cxr_tutorial.data.anatomy import View, draw_chest
from cxr_tutorial.data.example import Examples
from cxr_tutorial.data.exposure import SITES, draw_exposure, expose
from cxr_tutorial.data.images import resize_image, resize_mask, standardize
from cxr_tutorial.data.projection import project
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import Discriminator, Segmentor, SegmentorOutput
from cxr_tutorial.reader.figures import overlay

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes

SIZE = 96  # of the pictures on which the losses are computed, so that a slider answers at once


def explore_exposure(size: int = 128) -> VBox:
    """Draw a chest, choose how it is exposed, and see the picture and its grey values.

    Parameters
    ----------
    size : side of the picture in pixels.
    """
    chosen: dict[int, Any] = {}

    def chest(seed: int) -> Any:
        if seed not in chosen:
            view = View(field=(400.0, 400.0), apex=(0.5, 0.13), tilt=0.0, bends=((0.0, 0.0, 0.0),) * 3)
            chosen.clear()
            chosen[seed] = project(draw_chest(np.random.default_rng(seed)), view, size=size)
        return chosen[seed]

    def draw(axes: list[Axes], seed: int, site: str, scatter: float, log_rays: float, gamma: float) -> None:
        maps, drawn = chest(seed), draw_exposure(np.random.default_rng(seed), site)
        exposure = replace(drawn, scatter=scatter, photons=10.0**log_rays, gamma=gamma)
        lung = maps.field > 0
        image = expose(maps.tissue, maps.bone, lung, exposure, 400 / size, np.random.default_rng(seed)).numpy()
        overlay(axes[0], image, lung.numpy(), title=f"patient {seed}, site {site}")
        for inside, name in ((lung.numpy(), "lungs"), (~lung.numpy(), "outside")):
            axes[1].hist(image[inside], bins=40, range=(0.0, 1.0), histtype="step", lw=2, density=True, label=name)
        axes[1].set(xlabel="grey value", yticks=[])
        axes[1].legend()

    return _panel(
        draw,
        panels=2,
        seed=(1, 20, 1, 10),
        site=SITES,
        scatter=(0.0, 0.4, 0.02, 0.08),
        log_rays=(2.5, 6.0, 0.25, 5.0),
        gamma=(0.5, 1.5, 0.05, 1.0),
    )


def explore_prices(examples: Examples) -> VBox:
    """Choose a picture and the price of a missed pixel, and see which outline the Tversky loss wants.

    Readers draw the true edge with a spread of `doubt` pixels; the outline is the cut through their shares on which
    `losses.tversky` is least, found by trying all of them.

    Parameters
    ----------
    examples : pictures, at least one with a mask.

    Raises
    ------
    InputError : no example has a mask.
    """
    from scipy.ndimage import distance_transform_edt

    def draw(axes: list[Axes], picture: str, fn_weight: float, doubt: float) -> None:
        image, mask = _small(examples, picture)
        depth = distance_transform_edt(mask) - distance_transform_edt(~mask) - 0.5 * (2 * mask - 1)
        share = torch.special.ndtr(torch.tensor(depth / doubt))  # (H, W), of readers who call it lung
        cuts = torch.linspace(0.02, 0.98, 49)
        tried = torch.stack([_hard_tversky(share > t, share, fn_weight) for t in cuts])
        best = cuts[tried.argmin()]
        wanted = (share > best).numpy()
        overlay(axes[0], image, mask, wanted, title=f"area {wanted.sum() / mask.sum():.2f} of the readers' mean line")
        axes[1].plot(cuts, tried)
        axes[1].axvline(float(best), ls="--", color="#222222")
        axes[1].set(xlabel="cut at this share of readers", ylabel="Tversky loss", title=f"best cut {best:.2f}")

    weights = {"fn_weight": (0.05, 0.95, 0.05, 0.5), "doubt": (0.5, 6.0, 0.5, 3.0)}
    return _panel(draw, panels=2, picture=_with_mask(examples), **weights)


def explore_readings(examples: Examples) -> VBox:
    """Choose a picture and spoil its mask, and see what each reading of the KL term charges and pushes.

    Parameters
    ----------
    examples : pictures, at least one with a mask.

    Raises
    ------
    InputError : no example has a mask.
    """
    readings: dict[str, losses.KLMode] = {"R1": "bernoulli", "R2": "foreground_abs", "R3": "spatial"}

    def draw(axes: list[Axes], picture: str, grow: int, confidence: float) -> None:
        image, mask = _small(examples, picture)
        logits, target = _spoilt(mask, grow, confidence)
        overlay(axes[0], image, mask, (logits > 0).numpy(), title="prediction")
        for ax, (name, mode) in zip(axes[1:], readings.items(), strict=True):
            value, push = _push(partial(losses.kl, target=target, mode=mode), logits)
            _show_push(ax, push, f"{name} charges {value:.2f}")

    return _panel(draw, panels=4, picture=_with_mask(examples), grow=(-6, 6, 1, 2), confidence=(0.55, 0.99, 0.02, 0.89))


def explore_forces(examples: Examples) -> VBox:
    """Choose a picture, spoil its mask, and see the pushes of Tversky, of KL and of their sum on every pixel.

    Parameters
    ----------
    examples : pictures, at least one with a mask.

    Raises
    ------
    InputError : no example has a mask.
    """

    def draw(axes: list[Axes], picture: str, grow: int, kl_weight: float, fp_weight: float) -> None:
        image, mask = _small(examples, picture)
        logits, target = _spoilt(mask, grow, 0.89)
        prices: dict[str, Any] = {"fp_weight": fp_weight, "fn_weight": 1 - fp_weight}
        parts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "Tversky": lambda s: losses.tversky(s, target, **prices),
            "KL, R2": lambda s: kl_weight * losses.kl(s, target),
            "KLTV": lambda s: losses.kl_tversky(s, target, kl_weight=kl_weight, **prices),
        }
        overlay(
            axes[0], image, mask, (logits > 0).numpy(), title=f"Dice {metrics.dice((logits > 0).numpy(), mask):.2f}"
        )
        for ax, (name, loss) in zip(axes[1:], parts.items(), strict=True):
            value, push = _push(loss, logits)
            _show_push(ax, push, f"{name} {value:.2f}")

    sliders = {"grow": (-6, 6, 1, -3), "kl_weight": (0.0, 4.0, 0.25, 1.0), "fp_weight": (0.05, 0.95, 0.05, 0.3)}
    return _panel(draw, panels=4, picture=_with_mask(examples), **sliders)


def explore_gates(model: Segmentor, examples: Examples, size: int = 64) -> VBox:
    """Choose a picture and what the gates let through, and see the maps and the outline that comes of it.

    Parameters
    ----------
    model : a trained segmentor with attention gates.
    examples : pictures, at least one with a mask.
    size : side of the square that the model sees.

    Raises
    ------
    InputError : the model has no gates, or no example has a mask.
    """
    if not model.attention:
        raise InputError("the model has no attention gates: build it with attention=True")
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "their own maps": lambda a: a,
        "the maps' means": lambda a: a.mean((2, 3), keepdim=True).expand_as(a),
        "upside down": lambda a: 1 - a,
        "everything": torch.ones_like,
        "nothing": torch.zeros_like,
    }

    def draw(axes: list[Axes], picture: str, let_through: str) -> None:
        def replaced(gate: Any, given: Any, made: Any) -> Any:
            a = ways[let_through](made[1])
            return gate.out(a * given[0]), a

        image, mask = _small(examples, picture, size)
        output = _answer(model, image, dict.fromkeys(model.gates, replaced), return_attention=True)
        _show_answer(axes[0], image, mask, output.logits)
        for level, (ax, a) in enumerate(zip(axes[1:], output.attention or (), strict=True), 2):
            ax.imshow(a[0, 0].numpy(), cmap="cividis", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], title=f"map of level {level}, mean {a.mean():.2f}")
            ax.grid(False)

    return _panel(draw, panels=1 + len(model.gates), picture=_with_mask(examples), let_through=tuple(ways))


def explore_scale(model: Segmentor, examples: Examples, size: int = 48) -> VBox:
    """Choose a picture, how large it is shown and which pyramid input is blank, and see what becomes of the outline.

    Parameters
    ----------
    model : a trained segmentor with pyramid inputs.
    examples : pictures, at least one with a mask.
    size : side of the square that the model was trained on.

    Raises
    ------
    InputError : the model has no pyramid, or no example has a mask.
    """
    if not model.pyramid:
        raise InputError("the model has no pyramid inputs: build it with pyramid=True")
    doors = {f"x_{k}": part for k, part in enumerate(model.inputs, 2)}

    def draw(axes: list[Axes], picture: str, side: int, blank: str) -> None:
        def unseen(part: Any, given: Any, made: Any) -> Any:
            return part.forward(torch.zeros_like(given[0]))

        image, mask = _small(examples, picture, side)
        shut = {part: unseen for name, part in doors.items() if blank in (name, "all")}
        _show_answer(axes[0], image, mask, _answer(model, image, shut).logits)
        level = 1 + len(doors)
        least = torch.nn.functional.avg_pool2d(torch.tensor(image)[None, None], 2 ** (level - 1))[0, 0]
        axes[1].imshow(least.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[1].set(xticks=[], yticks=[], title=f"x_{level}, {' × '.join(map(str, least.shape))} pixels")
        axes[1].grid(False)

    sides = (size // 2, 2 * size, 8, size)
    return _panel(draw, panels=2, picture=_with_mask(examples), side=sides, blank=("none", *doors, "all"))


def explore_levels(model: Segmentor, examples: Examples, size: int = 64) -> VBox:
    """Choose a picture and a level whose say is struck out, and see the running sum from coarse to fine.

    Parameters
    ----------
    model : a trained segmentor with a progressive decoder that sums.
    examples : pictures, at least one with a mask.
    size : side of the square that the model sees.

    Raises
    ------
    InputError : the model has no predictions that are summed, or no example has a mask.
    """
    if not model.progressive or model.rule != "sum":
        raise InputError('the model sums no predictions: build it with progressive=True, rule="sum"')
    heads = {f"level {k}": head for k, head in enumerate(model.heads, 1)}

    def draw(axes: list[Axes], picture: str, without: str) -> None:
        def silent(head: Any, given: Any, made: Any) -> Any:
            return made - head.forward(given[0])  # what the coarser levels said

        image, mask = _small(examples, picture, size)
        struck = {heads[without]: silent} if without in heads else {}
        output = _answer(model, image, struck)
        said = zip(heads, (output.logits, *output.side_logits), strict=True)
        for ax, (name, logits) in zip(reversed(axes), said, strict=True):
            full = torch.nn.functional.interpolate(logits, image.shape, mode="bilinear")
            _show_answer(ax, image, mask, full, f"{name}, ")

    return _panel(draw, panels=len(heads), picture=_with_mask(examples), without=("none", *heads))


def explore_judge(discriminator: Discriminator, examples: Examples, size: int = 48) -> VBox:
    """Choose a picture and a mask for it, too large or too small and more or less sure, and see what D says.

    Parameters
    ----------
    discriminator : trained.
    examples : pictures, at least one with a mask.
    size : side of the square that D sees.

    Raises
    ------
    InputError : no example has a mask.
    """

    def draw(axes: list[Axes], picture: str, grow: int, confidence: float) -> None:
        image, mask = _small(examples, picture, size)
        guess = _spoilt(mask, grow, 0.9)[0] > 0
        shown = torch.where(guess, confidence, 1 - confidence)
        with torch.inference_mode():
            q = discriminator.eval()(standardize(torch.from_numpy(image)[None, None]), shown[None, None]).softmax(1)[0]
        overlay(axes[0], image, mask, guess.numpy(), title=f"the mask says {confidence:.2f} inside")
        names = [*(f"class {k}" for k in range(len(q) - 1)), "predicted"]
        axes[1].bar(names, q.numpy())
        axes[1].set(ylim=(0, 1), yticks=(0, 0.5, 1), title=f"D says predicted: {q[-1]:.3f}")

    return _panel(draw, panels=2, picture=_with_mask(examples), grow=(-6, 6, 1, 0), confidence=(0.55, 1.0, 0.05, 1.0))


def explore_budget(
    learn: Callable[[str, int, int], Segmentor], methods: tuple[str, ...], test: Examples, most: int, size: int = 48
) -> VBox:
    """Choose a method, how many masks it sees and which, and see it trained on the spot, beside all tries before it.

    Parameters
    ----------
    learn : trains a model by the name of the method, the number of masks and the seed of their choice.
    methods : the names to choose from.
    test : pictures the training does not see, at least one with a mask.
    most : the largest number of masks, at least 2.
    size : side of the square that the model sees.

    Raises
    ------
    InputError : no test picture has a mask, or `most` is less than 2.
    """
    if most < 2:
        raise InputError(f"most is {most}: a budget that can be moved needs at least 2 masks")
    pictures, made = _with_mask(test), dict[tuple[str, int, int], tuple[Segmentor, float]]()
    tests = [_small(test, name, size) for name in pictures]

    def score(model: Segmentor) -> float:
        guesses = [(_answer(model, image, {}).logits[0, 0] > 0).numpy() for image, _ in tests]
        return float(np.mean([metrics.dice(g, mask) for g, (_, mask) in zip(guesses, tests, strict=True)]))

    def draw(axes: list[Axes], picture: str, method: str, masks: int, seed: int) -> None:
        chosen = method, masks, seed
        if chosen not in made:
            model = learn(*chosen)
            made[chosen] = model, score(model)
        image, mask = tests[pictures.index(picture)]
        _show_answer(axes[0], image, mask, _answer(made[chosen][0], image, {}).logits)
        for name, symbol in zip(methods, cycle("osD^v"), strict=False):
            tried = [(m, dice) for (used, m, _), (_, dice) in made.items() if used == name]
            if tried:
                axes[1].plot(*zip(*tried, strict=True), symbol, ls="", label=name)
        axes[1].plot(masks, made[chosen][1], "o", ms=14, mfc="none", color="#222222")
        axes[1].set(xlabel="masks in training", xlim=(0, most + 1), ylim=(0, 1))
        axes[1].set(title=f"mean Dice of {len(tests)} pictures {made[chosen][1]:.3f}")
        axes[1].legend(loc="lower right")

    masks = (1, most, 1, min(4, most))
    return _panel(draw, panels=2, picture=pictures, method=methods, masks=masks, seed=(0, 9, 1, 0))


def _answer(model: Segmentor, image: np.ndarray, instead: Mapping[Any, Any], **options: bool) -> SegmentorOutput:
    """What the model says of a picture (H, W) while some of its parts give out something else."""
    hooks = [part.register_forward_hook(hook) for part, hook in instead.items()]
    try:
        with torch.inference_mode():
            return model.eval()(standardize(torch.from_numpy(image)[None, None]), **options)
    finally:
        for hook in hooks:
            hook.remove()


def _show_answer(ax: Axes, image: np.ndarray, mask: np.ndarray, logits: torch.Tensor, name: str = "") -> None:
    guess = (logits[0, 0] > 0).numpy()
    overlay(ax, image, mask, guess, title=f"{name}Dice {metrics.dice(guess, mask):.2f}")


def _panel(draw: Callable[..., None], panels: int, **choices: Any) -> VBox:
    """Controls above a row of matplotlib axes, drawn anew whenever a control moves.

    A choice is a tuple of names, or (low, high, step, start) for a slider.
    """
    import ipywidgets
    import matplotlib.pyplot as plt

    controls = {}
    for name, choice in choices.items():
        label = {"description": name.replace("_", " "), "style": {"description_width": "7em"}}
        if isinstance(choice[0], str):
            controls[name] = ipywidgets.Dropdown(options=choice, **label)
        else:
            low, high, step, start = choice
            kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
            controls[name] = kind(min=low, max=high, step=step, value=start, continuous_update=False, **label)

    def show(**values: Any) -> None:
        figure, axes = plt.subplots(1, panels, figsize=(3.1 * panels, 3.1))
        draw(list(axes), **values)
        plt.show()
        plt.close(figure)

    return ipywidgets.VBox([*controls.values(), ipywidgets.interactive_output(show, controls)])


def _with_mask(examples: Examples) -> tuple[str, ...]:
    ids = tuple(name for name, known in zip(examples.ids, examples.has_mask, strict=True) if known)
    if not ids:
        raise InputError("no example has a mask: load a set with masks, such as load_synthetic()")
    return ids[:50]


def _small(examples: Examples, picture: str, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The picture and its mask as squares of a size that a loss takes no time for."""
    example = examples[examples.ids.index(picture)]
    assert example.mask is not None
    return resize_image(example.image, (size, size)), resize_mask(example.mask, (size, size))


def _spoilt(mask: np.ndarray, grow: int, confidence: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (H, W) of a mask that is `grow` pixels too large, and the true mask."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(mask) - distance_transform_edt(~mask) - 0.5 * (2 * mask - 1)  # 0 on the edge
    sure = float(np.log(confidence / (1 - confidence)))
    return torch.tensor(np.where(depth > -grow, sure, -sure), dtype=torch.float32), torch.tensor(mask)[None, None]


def _push(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> tuple[float, np.ndarray]:
    """The loss, and minus its gradient at each logit times the number of pixels."""
    s = logits.clone()[None, None].requires_grad_()  # (1, 1, H, W)
    value = loss(s)
    (gradient,) = torch.autograd.grad(value, s)
    return value.item(), -logits.numel() * gradient[0, 0].numpy()


def _hard_tversky(guess: torch.Tensor, share: torch.Tensor, fn_weight: float) -> torch.Tensor:
    logits = torch.where(guess, 20.0, -20.0)[None, None]
    return losses.tversky(logits, share.float()[None, None], fp_weight=1 - fn_weight, fn_weight=fn_weight)


def _show_push(ax: Axes, push: np.ndarray, title: str) -> None:
    ax.imshow(push, cmap="PuOr_r", vmin=-3, vmax=3)  # as in the chapters: orange is up, towards lung
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
