from autovoice_app.settings import Settings, SettingsFile


def test_choices_come_back_after_a_restart(tmp_path):
    path = tmp_path / "settings.ini"
    first = SettingsFile(path)
    first.update(volume=0.25, recent_files=("/a b/song é.flac", "c.wav"), convert_transpose="-3")
    first.save()
    assert SettingsFile(path).current == first.current
    assert SettingsFile(path).current.recent_files == ("/a b/song é.flac", "c.wav")


def test_what_does_not_parse_becomes_its_default(tmp_path):
    path = tmp_path / "settings.ini"
    path.write_text('[General]\nvolume="\\"loud\\""\nrecent_files="[1, 2]"\nconvert_voice=]\nappearance="\\"dark\\""\n')
    assert SettingsFile(path).current == Settings(appearance="dark")


def test_a_newer_versions_settings_are_left_alone(tmp_path, caplog):
    path = tmp_path / "settings.ini"
    path.write_text("[General]\nversion=99\nvolume=0.1\n")
    assert SettingsFile(path).current == Settings()
    assert "version" in caplog.text
