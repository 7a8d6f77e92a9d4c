"""The right side of the Live page: presets, sound, devices and routing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from autovoice_app.assets import Space
from autovoice_app.tasks import Tasks
from autovoice_app.views.live_choices import BUILTIN_PRESETS, LiveChoices
from autovoice_app.views.live_hotkeys import HOTKEYS
from autovoice_app.views.live_routing import RoutingBox
from autovoice_app.widgets.basics import (
    add_row,
    fill_combo,
    make_card,
    make_combo,
    make_form,
    make_heading,
    make_icon_button,
)
from engine.devices import AudioDevice
from engine.live import BLOCK_CHOICES_MS, LiveOptions, LiveSettings

RATES = (16000, 44100, 48000, 96000)


class SettingSlider(QWidget):
    """A slider with its value beside it.

    Args:
        name: Accessible name.
        tip: Tooltip.
        low: Least value.
        high: Greatest value.
        step: Of the slider.
        form: Format of the value, such as "{:+.0f} dB".
    """

    moved = Signal(float)

    def __init__(self, name: str, tip: str, low: float, high: float, step: float, form: str) -> None:
        super().__init__()
        self._step, self._form = step, form
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(round(low / step), round(high / step))
        self.slider.setPageStep(max(1, round((high - low) / step / 10)))
        self.slider.setAccessibleName(name)
        self.slider.setToolTip(tip)
        self.slider.setMinimumWidth(60)
        self.text = QLabel()
        self.text.setMinimumWidth(self.text.fontMetrics().horizontalAdvance("-60 dBFS ") + 4)
        row.addWidget(self.slider, 1)
        row.addWidget(self.text)
        self.slider.valueChanged.connect(self._tell)
        self._show()

    @property
    def value(self) -> float:
        """The chosen value."""
        return self.slider.value() * self._step

    def set_value(self, value: float) -> None:
        """Choose without telling anybody."""
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(value / self._step))
        self._show()

    def _tell(self) -> None:
        self._show()
        self.moved.emit(self.value)

    def _show(self) -> None:
        self.text.setText(self._form.format(self.value))


class LiveControls(QScrollArea):
    """All choices but the voice; `changed` settings apply at once, `options_changed` need the devices reopened."""

    changed = Signal()
    options_changed = Signal()
    refresh_wanted = Signal()

    def __init__(self, tasks: Tasks, choices: LiveChoices) -> None:
        super().__init__()
        self.choices = choices
        self._devices: Sequence[AudioDevice] = ()
        self.setWidgetResizable(True)
        self.setAccessibleName("Live settings")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, Space.S, 0)
        column.setSpacing(Space.M)
        self.routing = RoutingBox(tasks, self.use_output)
        for card in (self._make_sound(), self._make_devices(), self._make_routing()):
            column.addWidget(card)
        column.addStretch(1)
        self.setWidget(inner)
        for combo in inner.findChildren(QComboBox):  # as wide as there is room, whatever the devices are called
            combo.setMinimumContentsLength(4)
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.show_choices(choices)

    def show_choices(self, choices: LiveChoices) -> None:
        """Set every control to these choices, telling nobody."""
        self.choices = choices
        settings = choices.settings
        with QSignalBlocker(self.auto), QSignalBlocker(self.gate), QSignalBlocker(self.denoise):
            self.auto.setChecked(settings.transpose == "auto")
            self.gate.setChecked(settings.gate_enabled)
            self.denoise.setChecked(settings.noise_suppression)
        self.transpose.set_value(0.0 if settings.transpose == "auto" else settings.transpose)
        for name, slider in self._sliders.items():
            value = getattr(settings, name)
            slider.set_value(100 * value if name == "wet" else value)
        self.transpose.setEnabled(settings.transpose != "auto")
        self._sliders["gate_threshold_dbfs"].setEnabled(settings.gate_enabled)
        with QSignalBlocker(self.hotkeys):
            self.hotkeys.setChecked(choices.global_hotkeys)
        self._fill_presets()
        self.block.setCurrentIndex(max(0, self.block.findData(str(choices.options.block_ms))))
        self._fill_devices()

    def show_devices(self, devices: Any) -> None:
        """List these devices."""
        self._devices = devices
        self._fill_devices()

    def use_output(self, device_id: str) -> None:
        """Play to this device from now on."""
        self._set_options(output_device=device_id)
        self.refresh_wanted.emit()

    def _make_sound(self) -> QFrame:
        card, column = make_card()
        head = QHBoxLayout()
        head.addWidget(make_heading("Sound"))
        head.addStretch(1)
        column.addLayout(head)
        row = QHBoxLayout()
        self.preset = make_combo("Preset", "Settings under one name; yours are listed after the built-in ones", [])
        self.preset.activated.connect(self._take_preset)
        row.addWidget(self.preset, 1)
        row.addWidget(
            make_icon_button(
                "floppy-disk", "Save preset", "Save these settings as a preset of yours", self._save_preset
            )
        )
        self.delete_preset = make_icon_button("trash", "Delete preset", "Delete this preset", self._drop_preset)
        row.addWidget(self.delete_preset)
        column.addLayout(row)
        form = _form()
        self.auto = _check(
            "Automatic", "Match pitch automatically",
            "Listens to your pitch for three seconds and moves it to the voice's",
        )  # fmt: skip
        self.auto.toggled.connect(self._take_auto)
        add_row(form, "Pitch", self.auto)
        self.transpose = SettingSlider("Transpose", "Move your pitch by semitones", -12, 12, 1, "{:+.0f} st")
        self.transpose.moved.connect(lambda value: self._set(transpose=value))
        form.addRow("", self.transpose)
        self._sliders: dict[str, SettingSlider] = {}
        self._add_slider(form, "Formant", "formant_semitones", "Larger or smaller throat", -6, 6, 0.5, "{:+.1f} st")
        self._add_slider(form, "Converted", "wet", "How much of the converted voice is mixed in", 0, 100, 5, "{:.0f} %")
        self._add_slider(form, "Input gain", "input_gain_db", "Before conversion", -24, 24, 1, "{:+.0f} dB")
        self._add_slider(form, "Output gain", "output_gain_db", "Limited to -1 dBFS", -24, 24, 1, "{:+.0f} dB")
        self.gate = _check("On", "Gate", "Keeps silence silent; closes 6 dB below the level that opens it")
        self.gate.toggled.connect(self._take_gate)
        add_row(form, "Gate", self.gate)
        self._add_slider(form, "", "gate_threshold_dbfs", "Level that opens the gate", -80, -10, 1, "{:.0f} dBFS")
        self._add_slider(form, "High-pass", "high_pass_hz", "Removes rumble below; 0 is off", 0, 300, 10, "{:.0f} Hz")
        self.denoise = _check("On (adds 10 ms)", "Noise suppression", "Lowers steady noise such as fans")
        self.denoise.toggled.connect(lambda on: self._set(noise_suppression=on))
        add_row(form, "Denoise", self.denoise)
        column.addLayout(form)
        return card

    def _add_slider(
        self, form: QFormLayout, label: str, name: str, tip: str, low: float, high: float, step: float, text: str
    ) -> None:
        slider = SettingSlider(label or "Gate threshold", tip, low, high, step, text)
        slider.moved.connect(lambda value: self._set(**{name: value / 100 if name == "wet" else value}))
        self._sliders[name] = slider
        add_row(form, label, slider)

    def _make_devices(self) -> QFrame:
        card, column = make_card()
        head = QHBoxLayout()
        head.addWidget(make_heading("Devices"))
        head.addStretch(1)
        head.addWidget(
            make_icon_button(
                "arrows-clockwise", "Refresh devices", "Look again for devices that came or went",
                self.refresh_wanted.emit,
            )
        )  # fmt: skip
        column.addLayout(head)
        form = _form()
        self.host_api = make_combo("Host API", "List only the devices of one driver system", [("All", "")])
        self.host_api.activated.connect(self._take_host_api)
        add_row(form, "System", self.host_api)
        self.input = make_combo("Microphone", "Where your voice comes from", [])
        self.input.activated.connect(lambda: self._set_options(input_device=self.input.currentData() or None))
        add_row(form, "Microphone", self.input)
        self.channel = make_combo("Microphone channel", "Which channel of the microphone's device", [])
        self.channel.activated.connect(self._take_channel)
        self.input_rate = make_combo("Microphone rate", "Rate of the microphone; its own is best", [])
        self.input_rate.activated.connect(lambda: self._take_rate("input_rate", self.input_rate.currentData()))
        form.addRow("", _pair(self.channel, self.input_rate))
        self.output = make_combo("Output", "Where the converted voice goes: a virtual microphone, or headphones", [])
        self.output.activated.connect(lambda: self._set_options(output_device=self.output.currentData() or None))
        add_row(form, "Output", self.output)
        self.output_rate = make_combo("Output rate", "Rate of the output; its own is best", [])
        self.output_rate.activated.connect(lambda: self._take_rate("output_rate", self.output_rate.currentData()))
        self.block = make_combo(
            "Block",
            "Shorter blocks delay less and need a faster machine; automatic measures this one",
            [("Automatic", "auto"), *((f"{ms:g} ms", str(ms)) for ms in BLOCK_CHOICES_MS)],
        )
        self.block.activated.connect(self._take_block)
        form.addRow("", self.output_rate)
        add_row(form, "Block", self.block)
        self.monitor = make_combo("Monitor", "A second device that plays the same, to hear yourself", [])
        self.monitor.activated.connect(lambda: self._set_options(monitor_device=self.monitor.currentData() or None))
        add_row(form, "Monitor", self.monitor)
        self._add_slider(form, "Its level", "monitor_gain_db", "Level of the monitor", -40, 12, 1, "{:+.0f} dB")
        column.addLayout(form)
        return card

    def _make_routing(self) -> QFrame:
        card, column = make_card()
        column.addWidget(make_heading("In other programs"))
        column.addWidget(self.routing)
        keys = ", ".join(f"{text} {name}" for name, text in HOTKEYS.values())
        self.hotkeys = _check("Global hotkeys", "Global hotkeys", f"Keys that work in other programs, too: {keys}")
        self.hotkeys.toggled.connect(self._take_hotkeys)
        column.addWidget(self.hotkeys)
        return card

    def _fill_devices(self) -> None:
        options, api = self.choices.options, self.choices.host_api
        apis = list(dict.fromkeys(device.host_api for device in self._devices))
        fill_combo(self.host_api, [("All", ""), *((name, name) for name in apis)], api)
        shown = [device for device in self._devices if not api or device.host_api == api]
        inputs = [device for device in shown if device.max_input_channels]
        outputs = [device for device in shown if device.max_output_channels]
        inputs.sort(key=lambda device: device.is_monitor)  # what a loudspeaker plays is seldom meant
        _fill_device_combo(self.input, "System default", inputs, options.input_device, with_api=not api)
        _fill_device_combo(self.output, "System default", outputs, options.output_device, with_api=not api)
        _fill_device_combo(self.monitor, "None", outputs, options.monitor_device, with_api=not api)
        chosen = next((device for device in inputs if device.id == options.input_device), None)
        count = min(chosen.max_input_channels if chosen else 2, 32)
        channels = [(f"Channel {number + 1}", str(number)) for number in range(count)]
        if count > 1:
            channels.append(("1 + 2 mixed", "mix"))
        fill_combo(self.channel, channels, "mix" if options.input_channel is None else str(options.input_channel))
        for combo, rate in ((self.input_rate, options.input_rate), (self.output_rate, options.output_rate)):
            fill_combo(combo, [("Own rate", ""), *((f"{r / 1000:g} kHz", str(r)) for r in RATES)], str(rate or ""))

    def _fill_presets(self) -> None:
        items = [(name, name) for name in (*BUILTIN_PRESETS, *self.choices.presets)]
        now = dataclasses.replace(self.choices.settings, muted=False, bypassed=False)
        every = {**BUILTIN_PRESETS, **self.choices.presets}
        chosen = next((name for name, settings in every.items() if settings == now), "")
        fill_combo(self.preset, [*items, *([] if chosen else [("As set below", "")])], chosen)
        self.delete_preset.setEnabled(chosen in self.choices.presets)

    def _take_preset(self) -> None:
        name = self.preset.currentData()
        settings = {**BUILTIN_PRESETS, **self.choices.presets}.get(name)
        if settings is not None:
            now = self.choices.settings
            settings = dataclasses.replace(settings, muted=now.muted, bypassed=now.bypassed)
            self.show_choices(dataclasses.replace(self.choices, settings=settings))
            self.changed.emit()

    def _save_preset(self) -> None:
        name, given = QInputDialog.getText(self, "Save preset", "Name of the preset:")
        if given and name.strip():
            self.save_preset(name.strip())

    def save_preset(self, name: str) -> None:
        """Keep the present settings under a name; a name of a built-in preset gets a mark."""
        name = f"{name} (mine)" if name in BUILTIN_PRESETS else name
        settings = dataclasses.replace(self.choices.settings, muted=False, bypassed=False)
        self.choices = dataclasses.replace(self.choices, presets={**self.choices.presets, name: settings})
        self._fill_presets()
        self.changed.emit()

    def _drop_preset(self) -> None:
        name = self.preset.currentData()
        presets = {key: value for key, value in self.choices.presets.items() if key != name}
        self.choices = dataclasses.replace(self.choices, presets=presets)
        self._fill_presets()
        self.changed.emit()

    def _set(self, **changes: Any) -> None:
        settings = dataclasses.replace(self.choices.settings, **changes)
        self.choices = dataclasses.replace(self.choices, settings=settings)
        self._fill_presets()
        self.changed.emit()

    def _set_options(self, **changes: Any) -> None:
        options: LiveOptions = dataclasses.replace(self.choices.options, **changes)
        if options != self.choices.options:
            self.choices = dataclasses.replace(self.choices, options=options)
            self._fill_devices()
            self.options_changed.emit()

    def _take_auto(self, on: bool) -> None:
        self.transpose.setEnabled(not on)
        self._set(transpose="auto" if on else self.transpose.value)

    def _take_gate(self, on: bool) -> None:
        self._sliders["gate_threshold_dbfs"].setEnabled(on)
        self._set(gate_enabled=on)

    def _take_hotkeys(self, on: bool) -> None:
        self.choices = dataclasses.replace(self.choices, global_hotkeys=on)
        self.changed.emit()

    def _take_host_api(self) -> None:
        self.choices = dataclasses.replace(self.choices, host_api=self.host_api.currentData())
        self._fill_devices()
        self.changed.emit()

    def _take_channel(self) -> None:
        word = self.channel.currentData()
        self._set_options(input_channel=None if word == "mix" else int(word))

    def _take_rate(self, name: str, word: str) -> None:
        self._set_options(**{name: int(word) if word else None})

    def _take_block(self) -> None:
        word = self.block.currentData()
        self._set_options(block_ms=word if word == "auto" else float(word))


def settings_of(choices: LiveChoices, *, muted: bool, bypassed: bool) -> LiveSettings:
    """The settings with the moment's mute and bypass."""
    return dataclasses.replace(choices.settings, muted=muted, bypassed=bypassed)


def _fill_device_combo(
    combo: Any, nothing: str, devices: Sequence[AudioDevice], chosen: str | None, *, with_api: bool
) -> None:
    items = [(nothing, "")]
    items += [(f"{d.name} ({d.host_api})" if with_api else d.name, d.id) for d in devices]
    if chosen and chosen not in [data for _, data in items]:
        items.append((f"{chosen.rpartition(': ')[2]} (not there now)", chosen))
    fill_combo(combo, items, chosen or "")


def _form() -> QFormLayout:
    form = make_form()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _pair(left: QWidget, right: QWidget) -> QWidget:
    widget = QWidget()
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(Space.S)
    row.addWidget(left, 1)
    row.addWidget(right, 1)
    return widget


def _check(text: str, name: str, tip: str) -> QCheckBox:
    box = QCheckBox(text)
    box.setAccessibleName(name)
    box.setToolTip(tip)
    return box
