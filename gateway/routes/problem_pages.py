"""What each kind of problem means: the pages that the `type` of a problem document points to."""

from html import escape
from http import HTTPStatus
from string import Template

from litestar import Response, get
from litestar.params import FromPath

from contracts.errors import NotFound
from gateway.http.problems import PROBLEMS, TYPE
from gateway.routes.pages import CONTENT_SECURITY_POLICY

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>$title</title>
  <link rel="icon" href="/web/icon.svg">
  <link rel="stylesheet" href="/web/style.css">
</head>
<body>
<main>
<h1>$title</h1>
$content
</main>
</body>
</html>
"""
)


@get("/docs/problems", include_in_schema=False)
async def problem_index() -> Response[str]:
    """All kinds of problems."""
    rows = "".join(
        f'<tr><td><a href="{TYPE}{code}">{code}</a></td><td>{status}</td><td>{escape(meaning)}</td></tr>\n'
        for code, (status, meaning) in sorted(PROBLEMS.items())
    )
    intro = (
        "<p>Each error is a problem document (RFC 9457). Its <code>code</code> is stable; <code>detail</code> says "
        "what happened, and <code>errors</code> which fields are wrong.</p>"
    )
    table = f"<table><thead><tr><th>code</th><th>status</th><th>means</th></tr></thead><tbody>\n{rows}</tbody></table>"
    return _page("Problems", f"{intro}\n{table}")


@get("/docs/problems/{code:str}", include_in_schema=False)
async def problem_page(code: FromPath[str]) -> Response[str]:
    """One kind of problem."""
    if code not in PROBLEMS:
        raise NotFound(f"there is no problem with the code {code[:100]!r}")
    status, meaning = PROBLEMS[code]
    phrase = HTTPStatus(status).phrase
    content = f'<p>{escape(meaning)}</p>\n<p>Status {status} ({phrase}). <a href="{TYPE[:-1]}">All problems</a></p>'
    return _page(code, content)


def _page(title: str, content: str) -> Response[str]:
    body = _PAGE.substitute(title=escape(title), content=content)
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return Response(body, media_type="text/html", headers=headers)
