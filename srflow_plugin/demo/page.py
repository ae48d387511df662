"""Look of the page: Gradio's components and what they call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from srflow_plugin.demo.answers import FACTORS, SAMPLES, TEMPERATURES, Answers
from srflow_plugin.demo.session import EXAMPLES, Session, example, transfer_example
from srflow_plugin.demo.turns import Turns
from srflow_plugin.demo.visits import forget

TITLE = "SRFlow: one low-resolution image, many high-resolution ones"
ENLARGES = """Upload a small image: it is enlarged, in several ways that all agree with it.
Transparency, grey and 16 bit stay what they are; large images: `srflow upscale`."""
FIGURES = """**PSNR rewards the average of all possible images, which is blurred.** A sample is one possible image, so
its PSNR may be lower than that of bicubic or of temperature 0. **LR-PSNR** is the consistency: how well a picture, made
small again, agrees with the low-resolution image."""
PAINTING = """Paint over a part of the picture with the brush. Only what is painted is drawn anew; every other pixel
stays exactly as it is. What is painted stays marked, so that another seed can be tried at the same place."""
TRANSFER = """Paste something into a photograph and let the flow fit it in: it keeps the details of the edited image
and the colours and the light of the original."""
BUTTONS = ["download", "fullscreen"]  # none that shares
FONTS = ["system-ui", "sans-serif"]  # none is fetched
# Words in darker colours than the theme's: their contrast is 4.5 to 1 or more.
THEME = gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(
    background_fill_primary="*neutral_50",  # the theme's own, which set() would forget
    block_label_text_color="*primary_800",
    block_title_text_color="*primary_800",
    body_text_color_subdued="*neutral_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    checkbox_label_background_fill_selected="*primary_600",
)
CALLS = 512  # those that wait for their turns, or until it is known that nobody waits for them
# Values come as they are sent, and Answers reads them: what Gradio reads loses depth, or is decoded before it is
# known to be an image of any size, or ends with a traceback instead of a line.
UNREAD: dict[str, Any] = {"preprocess": False}
DRAW_AGAIN = "draw again"  # id of the tab
# Gradio's examples are buttons without a name; this gives them one, for those who cannot see the pictures.
NAMED = f"""() => document.querySelectorAll("button.gallery-item").forEach(
    (button, number) => button.setAttribute("aria-label", "example: " + {list(EXAMPLES)}[number]))"""


def make_page(sessions: dict[str, Session], folder: Path, turns: Turns | None = None) -> gr.Blocks:
    """Make the page for networks by name, the first of them chosen.

    Args:
        sessions: networks by name.
        folder: each visitor's pictures are put there.
        turns: order of the visitors' calls.
    """
    answers = Answers(sessions, folder, turns)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        network = gr.Radio(answers.names, value=answers.names[0], label="network", visible=len(answers.names) > 1)
        shown, edit = gr.State(delete_callback=forget), gr.State(delete_callback=forget)
        with gr.Tabs() as tabs:
            with gr.Tab("Super-resolve"):
                choice, again = _add_super_resolution(answers, network, shown)
            with gr.Tab("Draw again here", id=DRAW_AGAIN):
                changed = _add_drawing_again(answers, network, edit)
            with gr.Tab("Transfer content"):
                _add_transfer(answers, network)
        begun = again.click(answers.begin, [choice, shown, edit], changed, **UNREAD)
        begun.success(lambda: gr.Tabs(selected=DRAW_AGAIN), None, tabs, api_visibility="private")
        page.load(None, js=NAMED)
    # The turns, and not Gradio's queue, say how many calls run at once, and in which order.
    return page.queue(api_open=False, max_size=CALLS, default_concurrency_limit=None)


def _add_super_resolution(answers: Answers, network: gr.Radio, shown: gr.State) -> tuple[gr.Dropdown, gr.Button]:
    """Add the first tab; return which picture is chosen, and the button that takes it to the second."""
    with gr.Row():
        with gr.Column(scale=1):
            gr.Markdown(ENLARGES)
            image = _upload("image", height=260)
            gr.Examples([[example(name)] for name in EXAMPLES], image, label="photographs of scikit-image")
            is_gt = gr.Checkbox(
                False,
                label="test: make my image smaller first, then compare the result with it",
                info="Leave it unticked to enlarge the image.",
            )
            temperature = _slider("temperature", TEMPERATURES, 0.8, 0.05)
            samples = _slider("samples", SAMPLES, 3, 1)
            seed = gr.Number(0, precision=0, label="seed")
            button = gr.Button("Super-resolve", variant="primary")
            compare_button = gr.Button("Compare temperatures")
        with gr.Column(scale=2):
            notes = gr.Markdown()
            gallery = gr.Gallery(
                label="beside bicubic; click to enlarge", columns=4, height="auto", format="png", buttons=BUTTONS
            )
            choice = gr.Dropdown(label="picture to compare with bicubic, and to draw again", interactive=True)
            slider = gr.ImageSlider(label="bicubic | the picture chosen", format="png", buttons=BUTTONS)
            with gr.Row():
                again = gr.Button("Draw a part of the picture again")
                download = gr.DownloadButton("Download all as PNG files")
            with gr.Row():
                spread = _shown("standard deviation of the samples")
                with gr.Column():
                    figures = gr.Markdown()
                    explained = gr.Markdown(FIGURES, visible=False)
    inputs = [network, image, is_gt, temperature, samples, seed, shown]
    outputs = [notes, gallery, choice, slider, spread, figures, explained, download, shown]
    button.click(answers.upscale, inputs, outputs, **UNREAD)
    compare_button.click(answers.compare, [network, image, is_gt, seed, shown], outputs, **UNREAD)
    # Moved sliders answer at once: the encoder's features are remembered. "release" is the end of a drag.
    for control in (temperature.release, samples.release, seed.submit):
        control(answers.upscale, inputs, outputs, **UNREAD, show_progress="minimal")
    choice.input(answers.choose, [choice, shown], slider, **UNREAD)
    return choice, again


def _add_drawing_again(answers: Answers, network: gr.Radio, edit: gr.State) -> list[Any]:
    """Add the second tab; return the components that show the picture."""
    gr.Markdown(PAINTING)
    with gr.Row():
        editor = gr.ImageEditor(
            label="picture to paint on",
            sources=(),
            transforms=(),
            type="pil",
            format="png",
            layers=False,
            buttons=["fullscreen"],
            brush=gr.Brush(colors=["#ff00c8b0"], color_mode="fixed"),
            height=560,
        )
        slider = gr.ImageSlider(label="before | after", format="png", buttons=BUTTONS)
    status = gr.Markdown()
    with gr.Row():
        temperature = _slider("temperature: calm to lively", TEMPERATURES, 0.8, 0.05)
        seed = gr.Number(0, precision=0, label="seed")
        draw, draw_other = gr.Button("Draw again", variant="primary"), gr.Button("New seed")
    with gr.Row():
        factor = _slider("details that are there: calmer below 1, livelier above 1", FACTORS, 0.7, 0.05)
        strengthen = gr.Button("Make calmer or livelier")
    with gr.Row():
        undo, download = gr.Button("Undo"), gr.DownloadButton("Download the picture as PNG")
    with gr.Accordion("A picture of yours, large already", open=False):
        own = _upload("picture of yours", height=200)
    changed = [editor, slider, status, download, edit]
    how = {**UNREAD, "show_progress_on": slider}
    draw.click(answers.draw, [edit, editor, temperature, seed], changed, **how)
    new_seed = draw_other.click(answers.next_seed, seed, seed, api_visibility="private", **UNREAD)
    new_seed.success(answers.draw, [edit, editor, temperature, seed], changed, **how)
    strengthen.click(answers.strengthen, [edit, editor, factor], changed, **how)
    undo.click(answers.undo, [edit, editor], changed, **how)
    own.upload(answers.begin_own, [network, own, edit], changed, **how)
    return changed


def _add_transfer(answers: Answers, network: gr.Radio) -> None:
    gr.Markdown(TRANSFER)
    with gr.Row():
        edited, original = _upload("edited"), _upload("original")
        result = _shown("result")
    button = gr.Button("Transfer", variant="primary")
    gr.Examples([list(transfer_example())], [edited, original], label="a part in another light")
    button.click(answers.transfer, [network, edited, original], result, **UNREAD)


def _shown(label: str) -> gr.Image:
    """Add an image that is only shown."""
    return gr.Image(label=label, alt_text=label, format="png", buttons=BUTTONS)


def _upload(label: str, **settings: Any) -> gr.Image:
    """Add an image to upload, whose file :class:`Answers` reads."""
    how = {"type": "filepath", "format": "png", "sources": ["upload", "clipboard"], **settings}
    return gr.Image(label=label, alt_text=label, **how)


def _slider(label: str, limits: tuple[float, float], value: float, step: float) -> gr.Slider:
    return gr.Slider(*limits, value, step=step, label=label)
