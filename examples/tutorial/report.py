"""A report as PDF: one page a shop, with a chart and a table. Knows nothing of Flask or jobs."""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable
from datetime import date

from fpdf import FPDF
from fpdf.enums import Align, TableBordersLayout
from fpdf.fonts import FontFace

MARGIN = 18
CHART_HEIGHT = 58
ACCENT = (13, 110, 253)
GREY = (110, 118, 126)
LIGHT = (222, 226, 230)

#: Told after each page: pages done, pages in all, what comes next.
Progress = Callable[[float, float, str], None]


def build(month: date, pages: int, progress: Progress | None = None) -> bytes:
    """The report for the days of ``month`` that have come, with ``pages`` shops."""
    pdf = FPDF(format="A4")
    pdf.set_margin(MARGIN)
    # A page is laid out to fit; a table that grows by a line must not start another one.
    pdf.set_auto_page_break(False)
    pdf.set_title(f"Orders in {month:%B %Y}")
    pdf.set_lang("en")
    for shop in range(1, pages + 1):
        if progress:
            progress(shop - 1, pages, f"Page {shop} of {pages}")
        _page(pdf, month, shop, pages)
    if progress:
        progress(pages, pages, "Putting the pages together")
    return bytes(pdf.output())


def orders(month: date, shop: int, today: date | None = None) -> dict[date, tuple[int, float]]:
    """Orders and takings by day. Made up, but the same ones for the same month and shop."""
    made_up = random.Random(f"{month:%Y-%m} {shop}")  # noqa: S311
    days = calendar.monthrange(month.year, month.month)[1]
    result = {}
    for day in (month.replace(day=number + 1) for number in range(days)):
        count = int(made_up.gauss(120 if day.weekday() < 5 else 60, 18))
        if day <= (today or date.today()):
            result[day] = (count, round(count * made_up.uniform(18, 24), 2))
    return result


def _page(pdf: FPDF, month: date, shop: int, pages: int) -> None:
    data = orders(month, shop)
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 18)
    pdf.start_section(f"Shop {shop}")
    pdf.cell(text=f"Shop {shop}: orders in {month:%B %Y}", new_x="LMARGIN", new_y="NEXT")
    with pdf.local_context(fill_color=ACCENT, draw_color=LIGHT, text_color=GREY):
        _chart(pdf, [count for count, _ in data.values()], MARGIN, pdf.get_y() + 4)
    pdf.set_y(pdf.get_y() + CHART_HEIGHT + 14)
    with pdf.local_context(draw_color=LIGHT):
        _table(pdf, data)
    with pdf.local_context(text_color=GREY):
        pdf.set_font("Helvetica", "", 8)
        pdf.set_y(-MARGIN)
        pdf.cell(pdf.epw, text=f"Page {shop} of {pages}", align=Align.R)


def _chart(pdf: FPDF, counts: list[int], left: float, top: float) -> None:
    bottom, width = top + CHART_HEIGHT, pdf.epw - 10
    peak = max([50, *counts])
    pdf.set_font("Helvetica", "", 7)
    for value in range(0, peak + 1, 50):
        y = bottom - CHART_HEIGHT * value / peak
        pdf.line(left + 10, y, left + 10 + width, y)
        pdf.text(left, y + 1, str(value))
    step = width / 31
    for number, count in enumerate(counts):
        x, height = left + 10 + number * step, CHART_HEIGHT * count / peak
        pdf.rect(x + step * 0.15, bottom - height, step * 0.7, height, style="F")
        pdf.text(x + step * 0.25, bottom + 3.5, str(number + 1))


def _table(pdf: FPDF, data: dict[date, tuple[int, float]]) -> None:
    pdf.set_font("Helvetica", "", 9)
    with pdf.table(
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        col_widths=(3, 1, 2),
        text_align=(Align.L, Align.R, Align.R),
        line_height=5,
        headings_style=FontFace(emphasis="BOLD"),
    ) as table:
        table.row(("Day", "Orders", "Takings (EUR)"))
        for day, (count, takings) in data.items():
            table.row((f"{day:%a} {day.day} {day:%B}", str(count), f"{takings:,.2f}"))
        count, takings = map(sum, zip(*data.values(), strict=True))
        total = ("Total", f"{count:,}", f"{takings:,.2f}")
        table.row(total, style=FontFace(emphasis="BOLD"))
