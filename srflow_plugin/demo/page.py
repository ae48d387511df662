"""Look of the page: Gradio's components and what they call."""

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


ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network"}


class Answers:
    """Functions behind the page's buttons, for networks by name; what is downloaded is put into ``folder``."""

    def __init__(self, sessions: dict[str, Session], folder: Path) -> None:
        self.sessions = sessions
        self.folder = folder

    def upscale(
        self, name: str, image: Image.Image | None, is_gt: bool, temperature: float, samples: int, seed: float
    ) -> tuple[Any, ...]:
        work = self.sessions[name].upscale
        return self._shown(_answered(work, image, is_gt, temperature, int(samples), int(seed or 0)))

    def compare(self, name: str, image: Image.Image | None, is_gt: bool, seed: float) -> tuple[Any, ...]:
        return self._shown(_answered(self.sessions[name].compare_temperatures, image, is_gt, int(seed or 0)))

    def transfer(self, name: str, edited: Image.Image | None, original: Image.Image | None) -> np.ndarray:
        result: np.ndarray = _answered(self.sessions[name].transfer, edited, original)
        return result

    def _shown(self, answer: Answer) -> tuple[Any, ...]:
        """Make the values of the page's components."""
        figures = "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in answer.figures)])
        (bicubic, _), (first, _) = answer.pictures[:2]
        return answer.pictures, (bicubic, first), answer.spread, figures, _archive(answer, self.folder)


def make_page(sessions: dict[str, Session], folder: Path) -> gr.Blocks:
    """Make the page for networks by name, the first of them chosen; what is downloaded is put into ``folder``."""
    answers, names = Answers(sessions, folder), list(sessions)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        network = gr.Radio(names, value=names[0], label="network", visible=len(names) > 1)
        with gr.Tab("Super-resolve"):
            _add_super_resolution(answers, network)
        with gr.Tab("Transfer content"):
            _add_transfer(answers, network)
    return page


def _add_super_resolution(answers: Answers, network: gr.Radio) -> None:
    with gr.Row():
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
    inputs = [network, image, is_gt, temperature, samples, seed]
    outputs = [gallery, slider, spread, figures, download]
    button.click(answers.upscale, inputs, outputs, **ONE_AT_A_TIME)
    compare_button.click(answers.compare, [network, image, is_gt, seed], outputs, **ONE_AT_A_TIME)
    # Moved sliders answer at once: the encoder's features are remembered. "release" is the end of a drag.
    for control in (temperature.release, samples.release, seed.submit):
        control(answers.upscale, inputs, outputs, **ONE_AT_A_TIME, show_progress="minimal")


def _add_transfer(answers: Answers, network: gr.Radio) -> None:
    gr.Markdown(
        "Paste something into a photograph and let the flow fit it in: it keeps the details of the edited "
        "image and the colours and the light of the original."
    )
    with gr.Row():
        edited = gr.Image(type="pil", label="edited", sources=["upload", "clipboard"])
        original = gr.Image(type="pil", label="original", sources=["upload", "clipboard"])
        result = gr.Image(label="result", format="png", buttons=BUTTONS)
    button = gr.Button("Transfer", variant="primary")
    gr.Examples([list(transfer_example())], [edited, original], label="a part in another light")
    button.click(answers.transfer, [network, edited, original], result, **ONE_AT_A_TIME)


def _answered(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do ``work``; a user's mistake becomes a line on the page."""
    if any(argument is None for argument in arguments):
        raise gr.Error("an image is missing: choose one first", print_exception=False)
    try:
        return work(*arguments)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _archive(answer: Answer, folder: Path) -> str:
    """Write a zip of the pictures, as they are; the page makes its copy of it at once."""
    path = folder / "srflow.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for picture, title in answer.pictures:
            with zipped.open(f"{title.replace(' ', '_')}.png", "w") as file:
                Image.fromarray(picture).save(file, "PNG")
    return str(path)
