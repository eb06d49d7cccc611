"""The gate before the API: once roles are set up, a request needs one, and what is not listed here needs the highest.

A role may be for some job types. Then it counts for the paths of a job or of a type, and for the lists that leave out
what it is not for; all else needs a role for everything. A job that a caller may not look at is answered as one that is
not there (404), so that an id reveals nothing.

A caller's role is that of its key, or of the app roles that Entra put into its token, where App Service's
authentication hands them over. Both are off unless a setting turns them on. Programs send the key in the header
`x-coremachine-key`; a browser, which cannot, gets a cookie from the sign-in page, for the pages alone.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from json import loads
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import StoreUnavailable
from core.safety.roles import Grant, Grants, KeyHolder, Role, digest_of, find_grant, read_role_keys
from infrastructure.base import DatabaseUnsuitable
from triggers.ports import ServicesNotReady
from triggers.problems import ProblemError, answer, find_answer, unknown_job

KEY_HEADER, KEY_COOKIE = "x-coremachine-key", "coremachine_key"
PAGES = "/api/ui"
ROLE_KEYS_SETTING, ENTRA_ROLES_SETTING = "COREMACHINE_ROLE_KEYS", "COREMACHINE_ENTRA_ROLES"
_ROLE_CLAIMS = frozenset({"roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"})
_PRINCIPAL = b"x-ms-client-principal"
_LONGEST_PRINCIPAL = 64 * 1024

# Probes have no key, and a browser that is to sign in has none yet.
_OPEN = (
    ("GET", re.compile(r"/api/(livez|readyz)")),
    ("GET", re.compile(r"/api/ui/static/[^/]+")),
    ("GET", re.compile(r"/api/ui/sign-in")),
    ("POST", re.compile(r"/api/ui/sign-(in|out)")),
)
# What a page's form asks for needs the role that the API's own path needs: one rule is for both.
_RULES: tuple[tuple[str, re.Pattern[str], Role], ...] = (
    ("POST", re.compile(r"/api/jobs/submit(/[^/]+|:batch)|/api/ui/submit/[^/]+"), Role.SUBMITTER),
    ("POST", re.compile(r"/api/durable/orchestrators/[^/]+"), Role.SUBMITTER),
    ("POST", re.compile(r"/api(/ui)?/jobs/[^/]+/(cancel|pause|resume|rerun)"), Role.OPERATOR),
    ("PATCH", re.compile(r"/api/jobs/[0-9a-f]{64}"), Role.OPERATOR),
    ("POST", re.compile(r"/api/ui/jobs/[0-9a-f]{64}/adjust"), Role.OPERATOR),
    ("POST", re.compile(r"/api(/ui)?/jobs/bulk"), Role.OPERATOR),
    ("POST", re.compile(r"/api/durable/instances/[^/]+/(terminate|suspend|resume|rewind)"), Role.OPERATOR),
    ("POST", re.compile(r"/api(/ui)?/dead-letters/redrive"), Role.OPERATOR),
    ("POST", re.compile(r"/api(/ui)?/schedules/[^/]+/(pause|resume|run)"), Role.OPERATOR),
    ("POST", re.compile(r"/api/ui/(new-schedule|schedules/[^/]+/(edit|delete))"), Role.OPERATOR),
    ("GET", re.compile(r"/api/ui/(new-schedule|schedules/[^/]+/edit)"), Role.OPERATOR),
    ("PUT", re.compile(r"/api/schedules/[^/]+"), Role.OPERATOR),
    ("DELETE", re.compile(r"/api/schedules/[^/]+"), Role.OPERATOR),
    ("PUT", re.compile(r"/api/limits/.+"), Role.OPERATOR),
    ("DELETE", re.compile(r"/api/limits/.+"), Role.OPERATOR),
    ("POST", re.compile(r"/api/ui/limits/.+"), Role.OPERATOR),
    ("GET", re.compile(r"/api/audit"), Role.OPERATOR),
    # Addresses of receivers are not for viewers, and only an administrator lets data go to another place.
    ("GET", re.compile(r"/api/ui/(new-webhook|webhooks/[^/]+/edit)"), Role.ADMIN),
    ("GET", re.compile(r"/api(/ui)?/webhooks(/.*)?"), Role.OPERATOR),
    ("POST", re.compile(r"/api(/ui)?/webhooks/[^/]+/(test|deliveries/[^/]+/redeliver)"), Role.OPERATOR),
    ("GET", re.compile(r".*"), Role.VIEWER),
)
# What a role for some job types counts for: the job, the type, and lists that leave out the others.
_OF_A_JOB = re.compile(r"/api(?:/ui)?(?:/jobs|/operations|/durable/instances)/([0-9a-f]{64})(?:/.*)?")
_OF_A_TYPE = re.compile(r"/api/jobs/submit/([^/]+)|/api/ui/submit/([^/]+)|/api/durable/orchestrators/([^/]+)")
_FILTERED = frozenset({("GET", "/api/jobs"), ("GET", "/api/job-types"), ("POST", "/api/jobs/submit:batch")})
RefusePage = Callable[[Scope, ProblemError], Response]
FindJobType = Callable[[str], str | None]


def role_needed(method: str, path: str) -> Role | None:
    """None: anybody. What no rule names needs the highest role."""
    if any(verb == method and paths.fullmatch(path) for verb, paths in _OPEN):
        return None
    return next((role for verb, paths, role in _RULES if verb == method and paths.fullmatch(path)), Role.ADMIN)


@dataclass(frozen=True)
class AccessRules:
    """How a caller's role is found.

    Args:
        keys: Holders by the digest of their key.
        uses_entra: Whether app roles in the principal's claims count.
        trusts_principal: Whether App Service vouches for the header that has them.
        is_broken: The setting cannot be read: nobody has a role.
    """

    keys: Mapping[str, KeyHolder] = field(default_factory=dict)
    uses_entra: bool = False
    trusts_principal: bool = False
    is_broken: bool = False

    @property
    def are_on(self) -> bool:
        return bool(self.keys) or self.uses_entra or self.is_broken

    @property
    def takes_principals(self) -> bool:
        """Whether app roles of Entra count here."""
        return self.uses_entra and self.trusts_principal

    @classmethod
    def read(cls, environment: Mapping[str, str], *, trusts_principal: bool) -> "AccessRules":
        """From the settings; what cannot be read lets nobody in, and the app names it."""
        keys, problems = read_role_keys(environment.get(ROLE_KEYS_SETTING, ""))
        entra = environment.get(ENTRA_ROLES_SETTING, "").strip().lower()
        is_broken = bool(problems) or entra not in {"", "true", "false", "1", "0"}
        return cls(keys, entra in {"true", "1"}, trusts_principal, is_broken)

    def find_holder(self, key: str) -> KeyHolder | None:
        """Whose key it is; None if nobody has it."""
        return None if self.is_broken else self.keys.get(digest_of(key))

    def find_caller(self, headers: list[tuple[bytes, bytes]], path: str) -> tuple[Grants, str | None]:
        """What the caller was given, and the name of its key; None where there is none."""
        if self.is_broken:
            return Grants(), None
        given = [value.decode("latin-1") for name, value in headers if name == KEY_HEADER.encode()]
        if not given and is_page(path):
            given = list(_keys_of_cookies(headers))
        holder = self.find_holder(given[0]) if len(given) == 1 else None
        grants = [holder.grant] if holder else []
        if self.takes_principals:
            grants += _grants_of_principal([value for name, value in headers if name == _PRINCIPAL])
        return Grants(tuple(grants)), holder.name if holder else None


def is_page(path: str) -> bool:
    """Whether it is one of the pages for people: only these take the cookie."""
    return path == PAGES or path.startswith(f"{PAGES}/")


def cookie_of_key(key: str) -> str:
    """The key as a cookie can carry it, whatever characters it has."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _keys_of_cookies(headers: list[tuple[bytes, bytes]]) -> Iterator[str]:
    pairs = [pair for name, value in headers if name == b"cookie" for pair in value.decode("latin-1").split(";")]
    for pair in pairs:
        name, _, value = pair.strip().partition("=")
        if name == KEY_COOKIE:
            try:
                yield base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode()
            except ValueError:
                yield ""  # a cookie that nobody here made: no key


def _grants_of_principal(values: list[bytes]) -> Iterator[Grant]:
    """The app roles among the claims, as App Service's authentication encodes them."""
    if len(values) != 1 or len(values[0]) > _LONGEST_PRINCIPAL:
        return
    try:
        document: Any = loads(base64.b64decode(values[0], validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return
    claims = document.get("claims") if isinstance(document, dict) else None
    for claim in claims if isinstance(claims, list) else ():
        if isinstance(claim, dict) and claim.get("typ") in _ROLE_CLAIMS:
            grant = find_grant(str(claim.get("val")))
            if grant is not None:
                yield grant


class AccessGate:
    """ASGI middleware: lets through who has the role, and notes the role and the key's name for the endpoints.

    Args:
        refuse_page: Makes the answer where a person is refused a page.
        find_job_type: The type of a job, None for an unknown one; called in a thread, for roles of some types alone.
    """

    def __init__(self, app: ASGIApp, rules: AccessRules, refuse_page: RefusePage, find_job_type: FindJobType) -> None:
        self._app = app
        self._rules = rules
        self._refuse_page = refuse_page
        self._find_job_type = find_job_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        needed = role_needed(scope["method"], scope["path"])
        grants, name = self._rules.find_caller(scope["headers"], scope["path"])
        state = {**scope.get("state", {}), "role": grants.highest, "grants": grants, "key_name": name}
        scope = {**scope, "state": state}
        if needed is not None:
            try:
                state["role"] = await self._find_role(scope, grants, needed)
            except (ProblemError, StoreUnavailable, ServicesNotReady, DatabaseUnsuitable) as error:
                await self._answer(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _find_role(self, scope: Scope, grants: Grants, needed: Role) -> Role:
        """The role that counts for what is asked for. Raises ProblemError where it is none, or too low."""
        role = grants.everywhere
        if grants.has_limits:
            role = await self._find_limited_role(scope["method"], scope["path"], grants)
        if role is None or role < needed:
            raise _refusal(role, needed, grants)
        return role

    async def _find_limited_role(self, method: str, path: str, grants: Grants) -> Role | None:
        if (method, path) in _FILTERED:
            return grants.highest
        named = _OF_A_TYPE.fullmatch(path)
        if named is not None:
            return grants.role_for(next(filter(None, named.groups())))
        found = _OF_A_JOB.fullmatch(path)
        if found is None:
            return grants.everywhere
        job_id = found[1]
        job_type = await run_in_threadpool(self._find_job_type, job_id)
        role = None if job_type is None else grants.role_for(job_type)
        if role is None:
            raise unknown_job(job_id)
        return role

    def _answer(self, scope: Scope, error: Exception) -> Response:
        """As the app answers the error behind the gate; raises one that it has no answer to."""
        path: str = scope["path"]
        if isinstance(error, ProblemError):
            return self._refuse_page(scope, error) if is_page(path) else answer(path, error)
        found = find_answer(Request(scope), error)
        if found is None:
            raise error
        return found


def expect_role(request: Request, needed: Role) -> None:
    """For what an endpoint learns from the body alone. Raises ProblemError where the caller's role is lower."""
    if not hasattr(request.state, "role"):
        return  # no roles are set up
    role: Role | None = request.state.role
    if role is None or role < needed:
        raise _refusal(role, needed, request.state.grants)


def expect_role_for(request: Request, job_type: str, needed: Role) -> None:
    """As `expect_role`, for jobs of a type that only the body names."""
    if hasattr(request.state, "grants"):
        grants: Grants = request.state.grants
        role = grants.role_for(job_type)
        if role is None or role < needed:
            raise _refusal(role, needed, grants)


def visible_patterns(request: Request) -> tuple[str, ...] | None:
    """Patterns of the job types that the caller may look at; None: all."""
    grants: Grants | None = getattr(request.state, "grants", None)
    return None if grants is None else grants.patterns


def may_look_at(request: Request, job_type: str) -> bool:
    """Whether the caller has any role for jobs of the type."""
    grants: Grants | None = getattr(request.state, "grants", None)
    return grants is None or grants.role_for(job_type) is not None


def _refusal(role: Role | None, needed: Role, grants: Grants) -> ProblemError:
    if role is None and grants.patterns:
        found = ", ".join(grants.patterns)
        detail = f"expected the role {needed.word} for this, found roles for the job types {found} alone"
        return ProblemError(403, "role_too_low", detail)
    if role is None:
        detail = f"expected a caller with the role {needed.word}, found none: send {KEY_HEADER}, or sign in"
        return ProblemError(401, "no_role", detail, headers={"WWW-Authenticate": "CoreMachineKey"})
    detail = f"expected the role {needed.word} or a higher one, found {role.word}; ask an administrator for it"
    return ProblemError(403, "role_too_low", detail)
