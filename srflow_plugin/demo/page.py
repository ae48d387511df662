"""How the page looks: Gradio's components and what they call."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from srflow_plugin.demo.session import EXAMPLES, Answer, Session, example, transfer_example
from srflow_plugin.errors import UserError

TITLE = "SRFlow: one low-resolution image, many high-resolution ones"
BUTTONS = ["download", "fullscreen"]  # none that shares
FONTS = ["system-ui", "sans-serif"]  # none is fetched
THEME = gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"])


def make_page(sessions: dict[str, Session], folder: Path) -> gr.Blocks:
    """The page for networks by name, the first of them chosen; what is downloaded is put into ``folder``."""
    names = list(sessions)

    def show(name: str, image: Image.Image | None, is_gt: bool, temperature: float, samples: int, seed: float) -> Any:
        return shown(_answered(sessions[name].upscale, image, is_gt, temperature, int(samples), int(seed or 0)))

    def compare(name: str, image: Image.Image | None, is_gt: bool, seed: float) -> Any:
        return shown(_answered(sessions[name].compare_temperatures, image, is_gt, int(seed or 0)))

    def transfer(name: str, edited: Image.Image | None, original: Image.Image | None) -> np.ndarray:
        return _answered(sessions[name].transfer, edited, original)

    def shown(answer: Answer) -> tuple[Any, ...]:
        """What the components of the page are given."""
        figures = "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in answer.figures)])
        (bicubic, _), (first, _) = answer.pictures[:2]
        return answer.pictures, (bicubic, first), answer.spread, figures, _archive(answer, folder)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        network = gr.Radio(names, value=names[0], label="network", visible=len(names) > 1)
        with gr.Tab("Super-resolve"), gr.Row():
            with gr.Column(scale=1):
                image = gr.Image(type="pil", label="image", sources=["upload", "clipboard"], height=260)
                gr.Examples([[example(name)] for name in EXAMPLES], image, label="photographs of scikit-image")
                is_gt = gr.Checkbox(True, label="this is the original: downscale it first, then compare")
                temperature = gr.Slider(0, 1.2, 0.8, step=0.05, label="temperature")
                samples = gr.Slider(1, 10, 3, step=1, label="samples")
                seed = gr.Number(0, precision=0, label="seed")
                button = gr.Button("Super-resolve", variant="primary")
                compare_button = gr.Button("Compare temperatures")
            with gr.Column(scale=2):
                gallery = gr.Gallery(
                    label="beside bicubic; click to enlarge", columns=4, height="auto", format="png", buttons=BUTTONS
                )
                slider = gr.ImageSlider(label="bicubic | the picture after it", format="png")
                with gr.Row():
                    spread = gr.Image(label="standard deviation of the samples", format="png", buttons=BUTTONS)
                    with gr.Column():
                        figures = gr.Markdown()
                        download = gr.DownloadButton("Download all as PNG files")
        with gr.Tab("Transfer content"):
            gr.Markdown(
                "Paste something into a photograph and let the flow fit it in: it keeps the details of the edited "
                "image and the colours and the light of the original."
            )
            with gr.Row():
                edited = gr.Image(type="pil", label="edited", sources=["upload", "clipboard"])
                original = gr.Image(type="pil", label="original", sources=["upload", "clipboard"])
                result = gr.Image(label="result", format="png", buttons=BUTTONS)
            fit_in = gr.Button("Transfer", variant="primary")
            gr.Examples([list(transfer_example())], [edited, original], label="a part in another light")
        one_at_a_time: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network"}
        inputs = [network, image, is_gt, temperature, samples, seed]
        outputs = [gallery, slider, spread, figures, download]
        button.click(show, inputs, outputs, **one_at_a_time)
        compare_inputs = [network, image, is_gt, seed]
        compare_button.click(compare, compare_inputs, outputs, **one_at_a_time)
        # Moved sliders answer at once: the encoder's features are remembered. "release" is the end of a drag.
        for control in (temperature.release, samples.release, seed.submit):
            control(show, inputs, outputs, **one_at_a_time, show_progress="minimal")
        fit_in.click(transfer, [network, edited, original], result, **one_at_a_time)
    return page


def _answered(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a user did wrong becomes a line on the page."""
    if any(argument is None for argument in arguments):
        raise gr.Error("an image is missing: choose one first", print_exception=False)
    try:
        return work(*arguments)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _archive(answer: Answer, folder: Path) -> str:
    """A zip of the pictures, as they are; the page makes its copy of it at once."""
    path = folder / "srflow.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for picture, title in answer.pictures:
            with zipped.open(f"{title.replace(' ', '_')}.png", "w") as file:
                Image.fromarray(picture).save(file, "PNG")
    return str(path)
