"""An app with background views for tests, and with the extensions that they must get along with.

``celery -A background_app.celery worker`` runs the views; the tests ask for them.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
import typing as t
from functools import wraps
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from flask.views import MethodView, View
from flask_babel import Babel, get_locale
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_wtf import CSRFProtect, FlaskForm
from flask_wtf.csrf import generate_csrf
from werkzeug.middleware.proxy_fix import ProxyFix
from wtforms import StringField
from wtforms.validators import DataRequired

from flask_offload import Offload, UserError, current_job

offload = Offload()
login = LoginManager()
csrf = CSRFProtect()
pages = Blueprint("pages", __name__)


class Person(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


class QuestionForm(FlaskForm):
    question = StringField(validators=[DataRequired()])


def note(word: str) -> None:
    """What really happened, in a file outside of everything."""
    with Path(os.environ["LEDGER"]).open("a") as file:
        file.write(f"{word}\n")


def wait_for_gate(name: str) -> None:
    """Until the test opens it."""
    gate = Path(os.environ["GATES"]) / name
    end = time.monotonic() + 30
    while not gate.exists() and time.monotonic() < end:
        time.sleep(0.01)


@login.user_loader
def load_user(name: str) -> Person | None:
    return Person(name) if name != "gone" else None


@login.request_loader
def user_of_token(request: t.Any) -> Person | None:
    return Person("robot") if request.headers.get("X-Token") == "robot's" else None


def adds_plan(view: t.Any) -> t.Any:
    @wraps(view)
    def guarded(*args: t.Any, **kwargs: t.Any) -> t.Any:
        note("guard")
        return view(*args, plan="gold", **kwargs)

    return guarded


def adds_person(view: t.Any) -> t.Any:
    return wraps(view)(lambda: view(person=object()))


# What is carried


@pages.route("/echo/<int:number>", methods=["GET", "POST", "PUT"])
@offload.background(title="Echo {number}")
def echo(number: int) -> Response:
    print("working on", number)
    return jsonify(
        method=request.method,
        url=request.url,
        number=number,
        args=request.args,
        form=request.form.to_dict(flat=False),
        json=request.get_json(silent=True),
        data="" if request.files else request.get_data(as_text=True),
        files={
            key: [file.filename, file.mimetype, len(file.read())]
            for key, file in request.files.items()
        },
        headers=dict(request.headers),
        cookies=request.cookies,
        remote=request.remote_addr,
        session=dict(session),
        user=current_user.get_id(),
        locale=str(get_locale()),
        link=url_for("pages.echo", number=1, _external=True),
        path=url_for("pages.echo", number=1),
        endpoint=request.endpoint,
        blueprint=request.blueprint,
        job=current_job.id,
        order=getattr(g, "order", None),
    )


@pages.get("/<lang>/greet/<name>")
@offload.background
def greet(name: str) -> str:
    return f"{g.lang} {name}"


@pages.url_value_preprocessor
def pull_lang(endpoint: str | None, values: dict[str, t.Any] | None) -> None:
    if values and "lang" in values:
        g.lang = values.pop("lang")


@pages.after_request
def count_in_blueprint(response: Response) -> Response:
    response.headers.add("X-After", "blueprint")
    return response


@pages.get("/planned/<what>")
@adds_plan
@offload.background
def planned(what: str, plan: str) -> str:
    return f"{what} {plan}"


@pages.get("/unfit")
@adds_person
@offload.background
def unfit(person: object) -> str:
    return "never"


@pages.get("/account")
@login_required
@offload.background
def account() -> str:
    return f"account of {current_user.id}"


@pages.get("/awaited")
@offload.background
async def awaited() -> str:
    await asyncio.sleep(0.01)
    return f"awaited {request.args['what']}"


@pages.get("/inner")
@offload.background
def inner() -> str:
    answer: str = outer()
    return f"inner of {answer}"


@pages.get("/outer")
@offload.background
def outer() -> str:
    return "outer"


class Counted(View):
    init_every_request = False
    decorators = (offload.background,)

    def dispatch_request(self) -> str:
        return "counted by a class"


class Method(MethodView):
    @offload.background
    def get(self) -> str:
        return "never"


pages.add_url_rule("/class", view_func=Counted.as_view("class_view"))
pages.add_url_rule("/method", view_func=Method.as_view("method_view"))


# Sessions, flashes, CSRF


@pages.post("/write-session")
@offload.background
def write_session() -> str:
    session["count"] = 1
    return "never"


@pages.post("/flash")
@offload.background
def flash_and_go() -> t.Any:
    flash("The export is done.", "success")
    return redirect(url_for("pages.messages"))


@pages.post("/flash-here")
@offload.background
def flash_here() -> str:
    flash("Shown at once.")
    return f"messages: {get_flashed_messages()}"


@pages.get("/form")
def form() -> str:
    return render_template_string(
        """<title>Form</title><form method="post" action="{{ action }}">
        <input type="hidden" name="csrf_token" value="{{ csrf_token() }}">
        <input type="hidden" name="gate" value="{{ gate }}">
        <button>Send</button></form>""",
        action=request.args["action"],
        gate=request.args.get("gate", "none"),
    )


@pages.get("/messages")
def messages() -> Response:
    return jsonify(get_flashed_messages(with_categories=True))


@pages.route("/question", methods=["GET", "POST"])
@offload.background
def question() -> t.Any:
    form = QuestionForm()
    if request.method == "GET":
        return f"<form>{form.csrf_token}</form>"
    if not form.validate_on_submit():
        return jsonify(form.errors), 422
    return f"asked {form.question.data}"


# Responses


@pages.get("/respond/<kind>")
@offload.background
def respond(kind: str) -> t.Any:
    match kind:
        case "redirect":
            return redirect("../messages?page=2")
        case "teapot":
            return "short and stout", 418, {"X-Own": "yes", "Content-Security-Policy": "img-src *"}
        case "empty":
            return "", 204
        case "cookie":
            hop = {"Connection": "close, X-Hop", "X-Hop": "1"}
            response = Response("with a cookie", headers=hop)
            response.set_cookie("secret", "for one answer")
            return response
        case "file":
            data = io.BytesIO(b"0123456789" * 20_000)
            return send_file(data, "text/csv", as_attachment=True, download_name="rows.csv")
        case "large":
            return "ü" * 100_000
        case "binary":
            return Response(b"\xff\x00\xfe", mimetype="application/octet-stream")
        case "huge":
            return "x" * 3_000_000
        case "stream":
            return Response(stream_with_context(str(i) for i in range(3)))
        case "late":

            @after_this_request
            def mark(response: Response) -> Response:
                response.headers["X-Late"] = "in the worker"
                return response

            return "late"
        case "public":
            return Response("for all", headers={"Cache-Control": "public, max-age=3600"})
    return abort(404)


@pages.post("/read-stream")
@csrf.exempt
@offload.background
def read_stream() -> bytes:
    return request.stream.read()


# Failures


@pages.get("/fail/<how>")
@offload.background
def fail(how: str) -> t.Any:
    if how == "handled":
        raise LookupError("nothing there")
    if how == "busy":
        return "busy", 503
    if how == "user":
        raise UserError("The month has no data yet.")
    raise RuntimeError("broken inside")


@pages.get("/flaky")
@offload.background(retries=2, retry_backoff=1, retry_jitter=False)
def flaky() -> str:
    note(f"flaky {current_job.attempt}")
    if current_job.attempt < 3:
        raise RuntimeError("not yet")
    return f"attempt {current_job.attempt}"


# Times


@pages.route("/slow", methods=["GET", "POST"])
@offload.background(unique=True)
def slow() -> str:
    note("slow")
    wait_for_gate(request.values.get("gate", "none"))
    return "slow is done"


@pages.get("/slow-file")
@offload.background
def slow_file() -> t.Any:
    wait_for_gate("file")
    return send_file(io.BytesIO(b"a,b"), "text/csv", as_attachment=True, download_name="rows.csv")


@pages.get("/mine")
@offload.background
def mine() -> str:
    return render_template_string("{{ offload_jobs() }}")


@pages.get("/list")
def listed() -> str:
    return render_template_string("<!doctype html><title>Jobs</title>{{ offload_jobs() }}")


@pages.route("/socket", websocket=True)
@offload.background
def socket() -> str:
    return "never"


@pages.post("/twice")
@offload.background
def twice() -> str:
    return "twice"


def create_app(**config: t.Any) -> Flask:
    app = Flask("background_app")
    app.config.update(
        SECRET_KEY="only for tests",
        OFFLOAD_URL=os.environ.get("OFFLOAD_URL"),
        OFFLOAD_NAMESPACE=os.environ.get("OFFLOAD_NAMESPACE"),
        OFFLOAD_FILES_URL=os.environ.get("OFFLOAD_FILES_URL"),
        OFFLOAD_BROKER_URL=os.environ.get("OFFLOAD_BROKER_URL"),
        OFFLOAD_LEASE=os.environ.get("OFFLOAD_LEASE"),
        OFFLOAD_MAX_REQUEST=6_000_000,
        OFFLOAD_MAX_RESPONSE=2_500_000,
        OFFLOAD_REQUEST_HEADERS=["X-Extra"],
        WTF_CSRF_CHECK_DEFAULT=bool(os.environ.get("CHECK_CSRF")),
    )
    app.config.update(config)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    login.init_app(app)
    csrf.init_app(app)
    Babel(app, locale_selector=lambda: request.cookies.get("lang") or "en")
    offload.init_app(app)
    app.register_blueprint(pages)

    @app.before_request
    def guard() -> t.Any:
        g.order = ["guard"]
        note(f"before {request.endpoint}")
        return ("not now", 403) if "forbidden" in request.args else None

    @app.before_request
    @offload.rerun
    def again() -> None:
        g.order = [*g.get("order", []), "again"]

    @app.after_request
    def count(response: Response) -> Response:
        response.headers.add("X-After", "app")
        return response

    @app.teardown_request
    def note_teardown(error: BaseException | None) -> None:
        if current_job:
            note(f"teardown {request.endpoint}")

    @app.errorhandler(LookupError)
    def no_such_thing(error: LookupError) -> t.Any:
        return f"handled: {error}", 404

    if config.get("OWN_500", True):

        @app.errorhandler(500)
        def broken(error: t.Any) -> t.Any:
            return f"sorry: {type(error.original_exception).__name__}", 500

    @app.post("/login/<name>")
    @csrf.exempt
    def log_in(name: str) -> str:
        login_user(Person(name))
        return name

    @app.get("/token")
    def token() -> str:
        return str(generate_csrf())

    @app.get("/put")
    def put() -> str:
        session.update(request.args)
        return "put"

    # A view that only this app has, closed over by its factory.
    word = config.get("WORD", "none")

    @app.get("/closed")
    @offload.background
    def closed() -> str:
        return f"closed over {word}"

    return app
