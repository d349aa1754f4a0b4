"""Output of commands."""

from modeling_umons.cli.command import print_error
from modeling_umons.cli.output import print_failures


def test_control_characters_are_printed_as_codes(capsys):
    print_failures([(0, "\x1b[2Ja.wav", "no\rsound\x9b1A")], "failures.csv")
    print_error("umons", OSError("\x1b]0;title\x07.wav is missing\nin é"))
    printed = capsys.readouterr()
    assert "\\x1b[2Ja.wav  no\\x0dsound\\x9b1A\n" in printed.out
    assert printed.err == "umons: error: \\x1b]0;title\\x07.wav is missing\nin é\n"
