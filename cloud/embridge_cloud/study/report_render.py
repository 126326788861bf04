"""One content, two forms: a self-contained HTML page and Markdown with its pictures beside it."""

from __future__ import annotations

import html
import re

from embridge_cloud.study.report_blocks import Block, Bullets, Code, Number, Page, Picture, Section, Table, Text
from embridge_cloud.study.report_svg import THEME

_CSS = """
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;margin:0;color:var(--ink);background:var(--paper)}
main,header,nav{max-width:72rem;margin:0 auto;padding:0 1rem}
h1{font-size:1.7rem;line-height:1.2;margin:1.6rem 0 .4rem}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
p,li{max-width:46rem}.lead,figcaption,caption,.aside{color:var(--soft)}
a{color:var(--accent)}nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;list-style:none;font-size:.92rem}
nav a{display:inline-block;padding:.3rem 0}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--paper);padding:.5rem}
.scroll{overflow-x:auto;margin:1rem 0;border:1px solid var(--line);border-radius:.4rem}
.scroll:focus-visible,a:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;padding:.6rem .8rem;font-size:.9rem}
caption span{display:block;position:sticky;left:.8rem;max-width:min(46rem,calc(100vw - 4rem))}
th,td{padding:.4rem .8rem;border-top:1px solid var(--line);text-align:right;vertical-align:top;
font-variant-numeric:tabular-nums}
thead th{font-weight:600;vertical-align:bottom;border-top:0}
th.w,td.w{text-align:left}tbody th{font-weight:500;position:sticky;left:0;background:var(--paper);max-width:14rem}
td{white-space:nowrap}td.w{white-space:normal;min-width:10rem}tbody th{min-width:7.5rem}
.aside{display:block;font-size:.8rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1rem;align-items:start}
figure{margin:1rem 0;min-width:0}figure.wide{grid-column:1/-1}figcaption{font-size:.88rem;max-width:46rem}
svg{display:block;width:100%;height:auto}
pre{overflow-x:auto;padding:.8rem;border:1px solid var(--line);border-radius:.4rem;font-size:.85rem}
code{font-family:ui-monospace,Consolas,monospace;font-size:.92em}
@media(max-width:40rem){th,td{padding:.35rem .5rem}td.w{min-width:6.5rem}td.w:last-child{min-width:15rem}
tbody th{min-width:6.5rem;max-width:9rem}
table{font-size:.86rem}}
footer{height:3rem}@media print{nav,.skip{display:none}.scroll{overflow:visible}}
"""


def to_html(page: Page) -> str:
    """One file that asks nobody for anything: styles and drawings are inside."""
    links = "".join(f'<li><a href="#{s.key}">{html.escape(s.title)}</a></li>' for s in page.sections)
    body = "".join(_section(s) for s in page.sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{html.escape(page.title)}</title><style>{THEME}{_CSS}</style></head><body>"
        '<a class="skip" href="#main">Skip to the report</a>'
        f'<header><h1>{html.escape(page.title)}</h1><p class="lead">{_inline(page.lead)}</p></header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="main">{body}</main>'
        "<footer></footer></body></html>\n"
    )


def _section(section: Section) -> str:
    parts: list[str] = []
    open_grid = False
    for block in section.blocks:
        picture = isinstance(block, Picture)
        if picture != open_grid:
            parts.append('<div class="figures">' if picture else "</div>")
            open_grid = picture
        parts.append(_html_block(block))
    if open_grid:
        parts.append("</div>")
    return f'<section id="{section.key}"><h2>{html.escape(section.title)}</h2>{"".join(parts)}</section>'


def _html_block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{_inline(i)}</li>" for i in block.items) + "</ul>"
    if isinstance(block, Code):
        return f'<pre tabindex="0"><code>{html.escape(block.text)}</code></pre>'
    if isinstance(block, Picture):
        wide = ' class="wide"' if block.wide else ""
        drawing = block.svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(block.alt)}" ', 1)
        return f"<figure{wide}>{drawing}<figcaption>{_inline(block.caption)}</figcaption></figure>"
    return _html_table(block)


def _html_table(table: Table) -> str:
    def cell(column: int, value: str | Number) -> str:
        mark = ' class="w"' if column in table.words else ""
        if column == 0:
            return f'<th scope="row"{mark}>{_inline(value if isinstance(value, str) else value.plain)}</th>'
        if isinstance(value, str):
            return f"<td{mark}>{_inline(value)}</td>"
        main = f"<strong>{html.escape(value.main)}</strong>" if value.strong else html.escape(value.main)
        aside = f' <span class="aside">{_broken(value.aside)}</span>' if value.aside else ""
        return f"<td{mark}>{main}{aside}</td>"

    marks = ((' class="w"' if i in table.words else "") for i in range(len(table.head)))
    head = "".join(f'<th scope="col"{m}>{_inline(h)}</th>' for m, h in zip(marks, table.head, strict=True))
    rows = "".join("<tr>" + "".join(cell(i, v) for i, v in enumerate(row)) + "</tr>" for row in table.rows)
    label = html.escape(re.sub(r"[`*]", "", table.caption))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<caption><span>{_inline(table.caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _broken(aside: str) -> str:
    """A deviation above its interval: the column stays narrow."""
    return html.escape(aside).replace(" [", "<br/>[")


def _inline(text: str) -> str:
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)


def to_markdown(page: Page, pictures: str) -> str:
    """The same content for a repository or a terminal.

    Args:
        page: The report.
        pictures: Folder of the drawings, relative to the file.
    """
    parts = [f"# {page.title}", page.lead]
    for section in page.sections:
        parts.append(f"## {section.title}")
        parts += [_markdown_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block, pictures: str) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Bullets):
        return "\n".join(f"* {item}" for item in block.items)
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    if isinstance(block, Picture):
        alt = block.alt.replace("[", "(").replace("]", ")")
        return f"![{alt}]({pictures}/{block.name}.svg)\n\n{block.caption}"
    rule = ["---" if i in block.words else "---:" for i in range(len(block.head))]
    lines = [[h or " " for h in block.head], rule, *([_markdown_cell(v) for v in row] for row in block.rows)]
    table = "\n".join("| " + " | ".join(v.replace("|", "\\|") for v in line) + " |" for line in lines)
    return f"{block.caption}\n\n{table}"


def _markdown_cell(value: str | Number) -> str:
    if isinstance(value, str):
        return value
    return f"**{value.main}** {value.aside}".strip() if value.strong else value.plain
