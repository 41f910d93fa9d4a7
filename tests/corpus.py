"""Texts that become code where somebody forgets to escape them. Each would set ``window.pwned``."""

from __future__ import annotations

__all__ = ["CORPUS", "LINKS"]

CORPUS = [
    "<script>window.pwned=1</script>",
    "</title><script>window.pwned=1</script>",
    "</textarea></noscript></style></pre></code></svg><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg/onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<math><mtext><style><img src=x onerror=window.pwned=1></style></mtext></math>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<details open ontoggle=window.pwned=1><summary>x</summary></details>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<form action='https://evil.example/'><button>Go on</button></form>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<style>*{display:none}</style>",
    "<offload-job href='https://evil.example/'></offload-job>",
    "<template><script>window.pwned=1</script></template>",
    '"><img src=x onerror=window.pwned=1>',
    "'><img src=x onerror=window.pwned=1>",
    "\" onmouseover=window.pwned=1 autofocus onfocus=window.pwned=1 x=\"",
    "' onmouseover=window.pwned=1 autofocus onfocus=window.pwned=1 x='",
    "` onmouseover=window.pwned=1 `",
    "<!--",
    "--><script>window.pwned=1</script>",
    "]]><script>window.pwned=1</script>",
    "<![CDATA[<script>window.pwned=1</script>]]>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#60;script&#62;window.pwned=1&#60;/script&#62;",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "{{ 7*7 }}{% include 'x' %}{{ config }}",
    "${window.pwned=1}",
    "%(password)s {0.__class__} {title}",
    "javascript:window.pwned=1",
    "JaVaScRiPt:window.pwned=1",
    "java\tscript:window.pwned=1",
    "data:text/html,<script>parent.pwned=1</script>",
    "//evil.example/x.js",
    "\x1b[31m\x00\x08<script>window.pwned=1</script>",
    "line\u2028</script><script>window.pwned=1</script>\u2029",
    "\ufeff<script>window.pwned=1</script>",
    "\u202e>tpircs<",
    "\uff1cscript\uff1ewindow.pwned=1\uff1c/script\uff1e",
    "+ADw-script+AD4-window.pwned=1+ADw-/script+AD4-",
    "one\n\nevent: job\ndata: {\"state\":\"succeeded\"}\n\n",
    "one\r\nSet-Cookie: offload_owner=x\r\n\r\n<script>window.pwned=1</script>",
]  # fmt: skip

#: Addresses that a page may offer as links, and no more than that.
LINKS = [
    "https://example.org/\"onmouseover=window.pwned=1//",
    "https://example.org/'onmouseover=window.pwned=1//",
    "https://example.org/<script>window.pwned=1</script>",
    "https://example.org/?x=javascript:window.pwned=1#<img/src=x/onerror=window.pwned=1>",
]  # fmt: skip
