"""The two pages that need no script: the shell that Dash fills, and the form that asks for a token."""

from __future__ import annotations

from html import escape

from flask import Response

SHELL = """<!DOCTYPE html>
<html lang="en">
  <head>
    {%metas%}
    <title>{%title%}</title>
    {%favicon%}
    {%css%}
  </head>
  <body>
    <noscript>Otoscope needs JavaScript; `otoscope show RUN` prints the same verdict in a terminal.</noscript>
    {%app_entry%}
    <footer>
      {%config%}
      {%scripts%}
      {%renderer%}
    </footer>
  </body>
</html>"""

LOGIN = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Otoscope: token</title>
    <style>
      :root {{ color-scheme: light dark }}
      body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 22rem; margin: 18vh auto; padding: 0 1rem }}
      input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin-top: .5rem }}
    </style>
  </head>
  <body>
    <h1>Otoscope</h1>
    <p>{message}</p>
    <form method="post" action="{action}">
      <label for="token">Token</label>
      <input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
      <button type="submit">Open</button>
    </form>
  </body>
</html>"""


def login_page(prefix: str, *, wrong: bool = False) -> Response:
    """Return the form that asks for a token, with status 401."""
    message = (
        "That token is not the right one."
        if wrong
        else "This page asks for the token that its server was started with ($OTOSCOPE_TOKEN)."
    )
    body = LOGIN.format(message=escape(message), action=escape(f"{prefix}login"))
    return Response(body, 401, content_type="text/html; charset=utf-8")
