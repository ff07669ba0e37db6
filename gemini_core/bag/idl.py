"""Message definitions in IDL, as rosidl writes them and bags store them (encoding ros2idl), and as other writers may.

rosbags has a parser, which takes no ``#include``, no annotation with a string in two parts and no bare ``struct {}``, and needs
time that doubles with each level of brackets. This one goes once over the tokens. It is of IDL 4.2 what can be a message:
modules, structs (with a base), typedefs, enums, constants where a size names them. Unions, maps and bitmasks are refused.
"""

from __future__ import annotations

import re
from typing import NoReturn, TypeAlias

from rosbags.interfaces import Nodetype

from gemini_core.errors import BagError

Descriptor: TypeAlias = tuple[Nodetype, object]
"""rosbags' own: (BASE, (name, string bound)), (NAME, type), (SEQUENCE or ARRAY, (descriptor, bound))."""
TypeDefinitions: TypeAlias = dict[str, tuple[list[tuple[str, str, object]], list[tuple[str, Descriptor]]]]
"""Type -> (constants, fields); constants are left out, since no message carries them."""

_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|^[ \t]*\#[^\n]*"""  # space, comments, and what is for a preprocessor
    r"""|(?P<token>[A-Za-z_]\w*|::|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|0[xX][0-9a-fA-F]+|[0-9][\w.]*|[^\s\w])""",
    re.DOTALL | re.MULTILINE,
)
_BASE = {
    "boolean": "bool",
    "octet": "byte",
    "char": "char",
    "wchar": "wchar",
    "float": "float32",
    "double": "float64",
    "long double": "float128",
    "short": "int16",
    "unsigned short": "uint16",
    "long": "int32",
    "unsigned long": "uint32",
    "long long": "int64",
    "unsigned long long": "uint64",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_WORDS = {word for name in _BASE for word in name.split()}


def parse_idl(text: str) -> TypeDefinitions:
    """Read the structs of an IDL text; names as ROS 2 writes them, "std_msgs/msg/Header".

    Raises:
        BagError: it is no IDL, or has what no message has.
    """
    return _Idl(_tokens(text)).types()


def _tokens(text: str) -> list[str]:
    found, end = [], 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:  # an unclosed quote or comment
            msg = f"expected IDL, got {text[end : end + 20]!r}"
            raise BagError(msg)
        if match["token"]:
            found.append(match["token"])
        end = match.end()
    return found


class _Idl:
    """Goes over the tokens; everything is known by its whole name, modules joined by "/"."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._scope: list[str] = []
        self._types: TypeDefinitions = {}
        self._aliases: dict[str, Descriptor] = {}
        self._constants: dict[str, int] = {}

    def types(self) -> TypeDefinitions:
        readers = {
            "@": self._annotation,
            "module": self._enter,
            "}": self._leave,
            ";": lambda: None,
            "const": self._constant,
            "typedef": self._typedef,
            "enum": self._enum,
            "struct": self._struct,
        }
        while self._at < len(self._tokens):
            word = self._next()
            if word not in readers:
                self._refuse("a module, struct, typedef, enum or const", word)
            readers[word]()
        if self._scope:
            self._refuse("the end of a module", "")
        if not self._types:
            self._refuse("a struct", "")
        return self._types

    # ----------------------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        self._scope.append(self._next())
        self._take("{")

    def _leave(self) -> None:
        if not self._scope:
            self._refuse("a definition", "}")
        self._scope.pop()

    def _struct(self) -> None:
        name = "/".join((*self._scope, self._next()))
        fields: list[tuple[str, Descriptor]] = []
        if self._peek() == ";":
            return  # a forward declaration
        if self._peek() == ":":
            self._next()
            base = self._named()
            fields.extend(self._types[base][1] if base in self._types else [])
            if base not in self._types:
                self._refuse("the definition of a struct's base", base)
        self._take("{")
        while (word := self._next()) != "}":
            if word == "@":
                self._annotation()
                continue
            self._at -= 1
            kind = self._type()
            fields.extend(self._declarators(kind))
        # ROS 2 gives a message without fields one, since C has no empty struct.
        self._types[name] = [], fields or [("structure_needs_at_least_one_member", (Nodetype.BASE, ("uint8", 0)))]

    def _typedef(self) -> None:
        kind = self._type()
        for name, descriptor in self._declarators(kind):
            self._aliases["/".join((*self._scope, name))] = descriptor

    def _enum(self) -> None:
        self._aliases["/".join((*self._scope, self._next()))] = (Nodetype.BASE, ("uint32", 0))
        self._take("{")
        while self._next() != "}":
            pass

    def _constant(self) -> None:
        """Only whole numbers are kept: nothing else can be a size."""
        kind = self._type()
        name = "/".join((*self._scope, self._next()))
        self._take("=")
        value = []
        while (word := self._next()) != ";":
            value.append(word)
        if kind[0] == Nodetype.BASE and len(value) == 1 and (number := self._whole(value[0])) is not None:
            self._constants[name] = number

    def _declarators(self, kind: Descriptor) -> list[tuple[str, Descriptor]]:
        """Read "a, b[3];"."""
        found = []
        while True:
            if self._peek() == "@":
                self._next()
                self._annotation()
            name, descriptor = self._next(), kind
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                self._refuse("a field's name", name)
            if self._peek() == "[":
                self._next()
                descriptor = self._collection(Nodetype.ARRAY, kind, self._number())
                self._take("]")
            found.append((name.removeprefix("_"), descriptor))  # IDL's escape for names that are its own words
            after = self._next()
            if after == ";":
                return found
            if after != ",":
                self._refuse("',' or ';'", after)

    # ----------------------------------------------------------------------------------------------------------------

    def _type(self) -> Descriptor:
        """Read the type of a field; a sequence of sequences is no message's."""
        if self._peek() != "sequence":
            return self._simple()
        self._next()
        self._take("<")
        inner, most = self._simple(), 0
        if self._peek() == ",":
            self._next()
            most = self._number()
        self._take(">")
        return self._collection(Nodetype.SEQUENCE, inner, most)

    def _collection(self, kind: Nodetype, inner: Descriptor, size: int) -> Descriptor:
        if inner[0] not in (Nodetype.BASE, Nodetype.NAME):
            self._refuse("an array of single values", "one of arrays")
        return kind, (inner, size)

    def _simple(self) -> Descriptor:
        word = self._peek()
        if word in ("string", "wstring"):
            self._next()
            most = 0
            if self._peek() == "<":
                self._next()
                most = self._number()
                self._take(">")
            return Nodetype.BASE, (word, most)
        if word in _WORDS:
            words = [self._next()]
            while self._peek() in ("long", "short", "double"):
                words.append(self._next())
            name = _BASE.get(" ".join(words))
            if name is None:
                self._refuse("a type", " ".join(words))
            return Nodetype.BASE, (name, 0)
        name = self._named()
        return self._aliases.get(name, (Nodetype.NAME, name))

    def _named(self) -> str:
        """Read "a::msg::B", and find what it means from here: itself, or something of a module around."""
        absolute = self._peek() == "::"
        if absolute:
            self._next()
        parts = [self._next()]
        if not re.fullmatch(r"[A-Za-z_]\w*", parts[0]) or parts[0] in ("map", "bitmask", "bitset", "union", "struct", "any"):
            self._refuse("a type", parts[0])
        while self._peek() == "::":
            self._next()
            parts.append(self._next())
        name = "/".join(parts)
        known = self._types.keys() | self._aliases.keys() | self._constants.keys()
        scopes = [[]] if absolute else [self._scope[:length] for length in range(len(self._scope), -1, -1)]
        for scope in scopes:
            if (candidate := "/".join((*scope, name))) in known:
                return candidate
        return name if absolute or len(parts) > 1 else "/".join((*self._scope, name))

    def _number(self) -> int:
        token = self._peek()
        if (number := self._whole(token)) is not None:
            self._next()
        else:
            name = self._named()
            number = self._constants.get(name)
        if number is None or number < 0:
            self._refuse("a size", token)
        return number

    @staticmethod
    def _whole(token: str) -> int | None:
        if not token:
            return None
        try:
            return int(token, 8 if token[0] == "0" and token.isdigit() else 0)
        except ValueError:
            return None

    def _annotation(self) -> None:
        """Pass over "@name" or "@name(...)", the @ being read."""
        self._next()
        while self._peek() == "::":
            self._next()
            self._next()
        if self._peek() == "(":
            depth = 0
            while True:
                depth += {"(": 1, ")": -1}.get(self._next(), 0)
                if not depth:
                    return

    # ----------------------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            self._refuse("more", "")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, token: str) -> None:
        if (got := self._next()) != token:
            self._refuse(repr(token), got)

    def _refuse(self, expected: str, got: str) -> NoReturn:
        before = " ".join(self._tokens[max(0, self._at - 6) : self._at])
        msg = f"expected {expected} in an IDL definition, got {got[:40]!r} (at '... {before[-80:]}')"
        raise BagError(msg)
