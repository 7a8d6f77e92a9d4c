#!/bin/sh
# Installs the system libraries that AutoVoice needs and that no Python package brings, or says which command would.
# Usage: packaging/system-packages.sh run|test
set -eu

purpose=${1:-run}
[ "$(uname -s)" = Linux ] || exit 0 # on macOS and Windows the Python packages bring everything

# PortAudio for sound devices; EGL, xkbcommon, D-Bus, fontconfig and the xcb parts for Qt's windows.
packages="python3-venv libportaudio2 libasound2-plugins libegl1 libgl1 libxkbcommon0 libxkbcommon-x11-0 libdbus-1-3 libfontconfig1
  libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0"
if [ "$purpose" = test ]; then
  # The tests play through a PulseAudio server of their own.
  packages="$packages pulseaudio pulseaudio-utils"
  # pyworld, which judges pitch there, comes as source only: it takes a compiler and Python's headers.
  command -v c++ >/dev/null 2>&1 || packages="$packages g++"
  headers=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null || true)
  [ -e "$headers/Python.h" ] || packages="$packages python3-dev"
fi

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "AutoVoice needs PortAudio, EGL, xkbcommon, D-Bus and the xcb cursor library; on Fedora, for example:"
  echo "  sudo dnf install portaudio alsa-plugins-pulseaudio mesa-libEGL libxkbcommon-x11 dbus-libs xcb-util-cursor"
  exit 0
fi

missing=
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  as_root=sudo
else
  echo "AutoVoice needs these system packages:$missing"
  echo "Install them with:  sudo apt-get install$missing"
  exit 1
fi
echo "Installing system packages:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086 # the list is split on purpose
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
