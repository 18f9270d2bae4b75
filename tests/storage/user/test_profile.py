"""The user's folder and settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.user.folders import QUARANTINE, STANDARD
from storage.user.profile import GIB, Config, ConfigError, Profile, ProfileBusy, ProfileError, parse_config


def test_without_a_file_every_setting_has_its_default(tmp_path: Path) -> None:
    assert Profile(tmp_path).config == Config()
    assert Config().quota == GIB


def test_settings_are_read_and_others_keep_their_defaults() -> None:
    config = parse_config('mode = "node"\njoin = ["10.0.0.1:4000"]\nquota = "500 MiB"\npoll = 5\n[screen]\nkeys = 1\n')
    assert config.mode == "node"
    assert config.join == ("10.0.0.1:4000",)
    assert config.quota == 500 * 1024**2
    assert config.poll == 5.0
    assert config.screen == {"keys": 1}
    assert config.target == 0.999


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mode = ", "not valid TOML"),
        ("quta = 5", "'quta' is no setting"),
        ('mode = "server"', "server"),
        ("quota = -1", "quota"),
        ('quota = "many"', "many"),
        ("quota = true", "quota"),
        ("poll = 0", "poll"),
        ("poll = nan", "poll"),
        ("target = 1.0", "target"),
        ('join = "one"', "join"),
        ("join = [1]", "join"),
    ],
)
def test_a_setting_that_cannot_be_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_config(text)


def test_a_settings_file_that_is_not_text_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"not UTF-8"):
        _ = Profile(tmp_path).config


def test_changed_settings_are_there_for_the_next_process(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    profile.change_config(poll=10, join=["a:1"])
    profile.change_config(poll=None)
    assert Profile(tmp_path).config == Config(join=("a:1",))


def test_a_change_that_cannot_be_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    profile.change_config(poll=10)
    for wrong in ({"poll": "often"}, {"poll": object()}, {"unheard": 1}):
        with pytest.raises(ConfigError):
            profile.change_config(**wrong)
    assert Profile(tmp_path).config.poll == 10


def test_a_damaged_settings_file_is_not_written_over(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    profile.config_file.write_text("mode = ")
    with pytest.raises(ConfigError):
        profile.change_config(poll=10)
    assert profile.config_file.read_text() == "mode = "


def test_the_environment_names_the_profile_and_an_argument_comes_first(tmp_path: Path) -> None:
    environ = {"P2PMAIL_PROFILE": str(tmp_path / "a")}
    assert Profile(None, environ).root == tmp_path / "a"
    assert Profile(tmp_path / "b", environ).root == tmp_path / "b"
    assert Profile(None, {}).root.name == "p2pmail"


def test_a_new_profile_has_its_folders_for_the_user_alone(tmp_path: Path) -> None:
    profile = Profile(tmp_path / "deep" / "profile")
    before = profile.exists
    profile.create()
    profile.create()
    assert (before, profile.exists) == (False, True)
    assert profile.folders().names() == [*STANDARD, QUARANTINE]
    assert profile.root.stat().st_mode & 0o777 == 0o700
    assert (profile.folder("Inbox") / "cur").stat().st_mode & 0o777 == 0o700


def test_quarantine_lies_outside_the_mail_folder(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    assert not profile.folder(QUARANTINE).is_relative_to(profile.mail)


def test_a_profile_that_cannot_be_made_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match="can't be made"):
        Profile(tmp_path / "file" / "profile").create()


def test_two_processes_cannot_do_the_same_work(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    with profile.lock("agent"):
        with pytest.raises(ProfileBusy, match="process"), Profile(tmp_path).lock("agent"):
            pass
        with profile.lock("outbox"):
            pass
    with profile.lock("agent"):
        pass


def test_the_control_socket_has_a_path_that_a_socket_can_have(tmp_path: Path) -> None:
    assert Profile("/p").control_socket == Path("/p/control.sock")
    private = tmp_path / "run"
    private.mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(private)}
    long = Profile(tmp_path / ("x" * 120), environ).control_socket
    assert long.parent == private
    assert long != Profile(tmp_path / ("y" * 120), environ).control_socket
    private.chmod(0o755)
    with pytest.raises(ProfileError, match="open to others"):
        _ = Profile(tmp_path / ("x" * 120), environ).control_socket
