"""Tables in Markdown and on the screen."""

from modeling_umons.utils.tables import markdown_table, print_table


def test_markdown_table_aligns_on_request():
    header, rows = ["split", "rows", "hours"], [["train", 16327, "1.50"], ["a", 0, ""]]
    assert markdown_table(header, rows).splitlines() == [
        "| split | rows | hours |",
        "| --- | ---: | ---: |",
        "| train | 16,327 | 1.50 |",
        "| a | 0 |  |",
    ]
    assert markdown_table(header, rows, align=True).splitlines() == [
        "| split |   rows | hours |",
        "| ----- | -----: | ----: |",
        "| train | 16,327 |  1.50 |",
        "| a     |      0 |       |",
    ]


def test_print_table_aligns_columns(capsys):
    print_table(["metric", "model"], [["accuracy", "0.5"], ["f1", "10.25"]])
    assert capsys.readouterr().out.splitlines() == ["", "metric    model", "accuracy    0.5", "f1        10.25"]
