"""The chat with a back end of its own: it serves the page, knows who its visitors are, and alone holds the key that makes their tokens.

Run it with `python examples/chat/back_end.py` and TALLYGATE_BASE_URL, TALLYGATE_API_KEY and APP_ID in the environment; the app's manifest has to
name its origin, `http://localhost:9000`, in `allowedOrigins`. Standard library only.
"""

import json
import os
import urllib.error
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parent / "site"
BASE_URL, KEY, APP_ID = os.environ["TALLYGATE_BASE_URL"], os.environ["TALLYGATE_API_KEY"], os.environ["APP_ID"]
PORT = int(os.environ.get("PORT", "9000"))


class BackEnd(SimpleHTTPRequestHandler):
    """GET serves the site, POST /token makes a token."""

    def do_GET(self) -> None:
        """Serve a file, or say where the gateway is and that tokens are had here."""
        if self.path == "/.well-known/tallygate.json":
            self._answer(200, {"appId": APP_ID, "baseUrl": BASE_URL, "tokens": "/token"})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Make a token for a visitor of this page. This is the place to look at your own session, and to refuse who has none."""
        if self.path != "/token" or self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            self._answer(403, {"error": "Tokens are for pages of this site."})
            return
        body = json.dumps({"appId": APP_ID}).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{BASE_URL}/v1/client-tokens", body, headers), timeout=10) as made:
                self._answer(200, json.load(made))
        except urllib.error.HTTPError as refused:
            self._answer(502, {"error": f"The gateway refused to make a token: {refused.code}."})
        except OSError:
            self._answer(503, {"error": "The gateway does not answer."})

    def _answer(self, status: int, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), partial(BackEnd, directory=str(SITE))).serve_forever()
