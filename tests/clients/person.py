"""A person without a browser: submits the form of the sign-in page."""

import re
import urllib.parse
import urllib.request

PASSWORD = "demo-password-1"
SECRETS = re.compile(r"eyJ[\w-]+\.[\w-]+|bcp_[\w-]{12,}|demo-password-1")


def sign_in(url):
    page = urllib.request.urlopen(url).read().decode()
    form_token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
    form = {"form_token": form_token, "email": "demo@example.com", "password": PASSWORD}
    # A browser sends the origin of the page with its forms.
    origin = {"origin": "http://" + urllib.parse.urlsplit(url).netloc}
    request = urllib.request.Request(f"{url}/sign-in", urllib.parse.urlencode(form).encode(), origin)
    answer = urllib.request.urlopen(request)
    assert "You are signed in" in answer.read().decode()
