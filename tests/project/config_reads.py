"""Which fields of which configurations the package reads: attributes of expressions whose class is known.

The class of an expression follows from the annotations: of parameters, fields and results, from `load(path, Schema)`,
from constructors and from what `match` has found. A field of the same name in another class is
another field. An expression whose class is not known reads nothing, and neither does a validator.
"""

import ast
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.config import Config

Read = tuple[type, str]
Env = dict[str, Any]
_WRAPPERS = ("sorted", "list", "tuple", "set", "reversed", "iter")


def members(annotation: Any) -> Iterator[type]:
    """The classes of an annotation: of a union all of its members."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from members(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from members(one)
    elif isinstance(annotation, typing.TypeVar):
        yield from members(annotation.__bound__)
    elif (
        isinstance(origin, type) and hasattr(origin, "__dict__") and origin.__module__.startswith(("pipeline", "tests"))
    ):
        yield origin
    elif isinstance(annotation, type) and origin is None:
        yield annotation


def union(annotations: list[Any]) -> Any:
    """One annotation for several."""
    known = [one for one in annotations if one is not None]
    return typing.Union[tuple(known)] if known else None  # noqa: UP007 - made of a list


def element(annotation: Any) -> Any:
    """What a loop over something of this annotation finds."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return element(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return union([element(one) for one in arguments])
    return arguments[0] if arguments and isinstance(origin, type) else None


def owner(cls: type, name: str) -> type:
    """The class that declares a field."""
    return next(base for base in cls.__mro__ if name in inspect.get_annotations(base))


class Reader(ast.NodeVisitor):
    """Walks a module; `reads` has what it read of any configuration."""

    def __init__(self, module: types.ModuleType, reads: set[Read]) -> None:
        self.module = module
        self.reads = reads
        self.env: Env = {}
        self.classes: list[type] = []

    def type_of(self, node: ast.expr) -> Any:
        """The annotation of an expression, None where it is not known."""
        match node:
            case ast.Name(id=name):
                return self.env.get(name)
            case ast.Attribute(value=value, attr=attr):
                return union([attribute(cls, attr) for cls in members(self.type_of(value))])
            case ast.Call():
                return self.result(node)
            case ast.Subscript(value=value, slice=key):
                return self.item(self.type_of(value), key)
            case ast.IfExp(body=body, orelse=orelse):
                return union([self.type_of(body), self.type_of(orelse)])
            case ast.BoolOp(values=values):
                return union([self.type_of(value) for value in values])
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self.type_of(value)
        return None

    def item(self, annotation: Any, key: ast.expr) -> Any:
        arguments = typing.get_args(annotation)
        if typing.get_origin(annotation) in (dict, typing.get_origin(typing.Mapping[str, int])):
            return arguments[1]
        if typing.get_origin(annotation) is tuple and isinstance(key, ast.Constant) and isinstance(key.value, int):
            return arguments[key.value] if key.value < len(arguments) and ... not in arguments else arguments[0]
        return element(annotation)

    def named(self, node: ast.expr) -> Any:
        """The class, function or module that an expression names."""
        match node:
            case ast.Name(id=name):
                return None if name in self.env else vars(self.module).get(name)
            case ast.Attribute(value=value, attr=attr):
                found = self.named(value)
                if isinstance(found, type | types.ModuleType):
                    return inspect.getattr_static(found, attr, None)
                methods = [inspect.getattr_static(cls, attr, None) for cls in members(self.type_of(value))]
                return next((one for one in methods if one is not None), None)
        return None

    def result(self, node: ast.Call) -> Any:
        """The annotation of what a call returns."""
        match node.func:
            case ast.Attribute(value=value, attr="model_copy"):
                return self.type_of(value)
            case ast.Attribute(value=value, attr="model_validate"):
                return self.named(value)
            case ast.Attribute(value=value, attr="items" | "values" as which):
                found = self.type_of(value)
                arguments = typing.get_args(found)
                if len(arguments) == 2:
                    return list[tuple[arguments] if which == "items" else arguments[1]]  # type: ignore[misc,valid-type]
            case ast.Name(id=name) if name in _WRAPPERS and node.args:
                return self.type_of(node.args[0])
            case ast.Name(id="enumerate") if node.args:
                return list[tuple[int, element(self.type_of(node.args[0]))]]  # type: ignore[misc]
            case ast.Name(id="zip"):
                return list[tuple[tuple(element(self.type_of(one)) for one in node.args)]]  # type: ignore[misc]
            case ast.Name(id="replace") if node.args:
                return self.type_of(node.args[0])
        found = self.named(node.func)
        if isinstance(found, type):
            return found
        found = getattr(found, "__func__", found)
        found = inspect.unwrap(found) if callable(found) else found
        annotation = getattr(found, "__annotations__", {}).get("return")
        if isinstance(annotation, typing.TypeVar):
            schemas = [self.named(one) for one in node.args]
            return next((one for one in schemas if isinstance(one, type)), self.first_of(node, annotation))
        if typing.get_origin(annotation) in (typing.get_origin(typing.Iterator[int]),) and not inspect.isgenerator(
            found
        ):
            return annotation
        return self.resolve(annotation)

    def first_of(self, node: ast.Call, variable: Any) -> Any:
        return next((found for one in node.args if (found := self.type_of(one)) is not None), variable)

    def resolve(self, annotation: Any) -> Any:
        """An annotation in quotes, as that of a class within itself."""
        if isinstance(annotation, str):
            names = {**vars(self.module), **{cls.__name__: cls for cls in self.classes}}
            try:
                return eval(annotation, names)
            except (NameError, SyntaxError, TypeError, AttributeError):
                return None
        return annotation

    def bind(self, target: ast.expr, annotation: Any) -> None:
        """Gives the names of a target their annotations."""
        match target:
            case ast.Name(id=name):
                self.env[name] = annotation
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                arguments = typing.get_args(annotation)
                is_fixed = typing.get_origin(annotation) is tuple and ... not in arguments
                for place, part in enumerate(parts):
                    known = arguments[place] if is_fixed and place < len(arguments) else element(annotation)
                    self.bind(part, known)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        holder: Any = self.classes[-1] if self.classes else self.module
        self.classes.append(vars(holder)[node.name])
        self.generic_visit(node)
        self.classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if any("_validator" in ast.unparse(one) for one in node.decorator_list):
            return  # to check a setting is not to use it
        outer, self.env = self.env, dict(self.env)
        names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for place, argument in enumerate(names):
            annotation = self.annotated(argument.annotation)
            if place == 0 and argument.arg == "self" and self.classes:
                annotation = self.classes[-1]
            self.env[argument.arg] = annotation
        self.generic_visit(node)
        self.env = outer

    def annotated(self, node: ast.expr | None) -> Any:
        """The value of an annotation."""
        if node is None:
            return None
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
        return self.resolve(text)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            for target, value in zip(node.targets[0].elts, node.value.elts, strict=False):
                self.bind(target, self.type_of(value))
            return
        for target in node.targets:
            self.bind(target, self.type_of(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self.bind(node.target, self.annotated(node.annotation))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self.bind(node.target, self.type_of(node.value))

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, element(self.type_of(node.iter)))
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for one in node.items:
            if one.optional_vars is not None:
                found = self.type_of(one.context_expr)
                self.bind(one.optional_vars, element(found) or found)
        self.generic_visit(node)

    def comprehension(self, node: Any) -> None:
        outer, self.env = self.env, dict(self.env)
        for generator in node.generators:
            self.bind(generator.target, element(self.type_of(generator.iter)))
        self.generic_visit(node)
        self.env = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            outer, self.env = self.env, dict(self.env)
            for pattern in ast.walk(case.pattern):
                if isinstance(pattern, ast.MatchClass):
                    cls = self.named(pattern.cls)
                    for name, inner in zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True):
                        found = self.read(cls, name)
                        if isinstance(inner, ast.MatchAs) and inner.name:
                            self.env[inner.name] = found
            chosen = [self.named(one.cls) for one in ast.walk(case.pattern) if isinstance(one, ast.MatchClass)]
            if isinstance(node.subject, ast.Name) and chosen:
                self.env[node.subject.id] = union(chosen)
            if isinstance(case.pattern, ast.MatchAs) and case.pattern.name and chosen:
                self.env[case.pattern.name] = union(chosen)
            for statement in case.body:
                self.visit(statement)
            self.env = outer

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        for cls in members(self.type_of(node.value)):
            self.read(cls, node.attr)

    def visit_Call(self, node: ast.Call) -> None:
        """`Other(**config.model_dump())` reads all that the other model then holds."""
        self.generic_visit(node)
        if isinstance(self.named(node.func), type):
            for keyword in node.keywords:
                match keyword:
                    case ast.keyword(arg=None, value=ast.Call(func=ast.Attribute(value=value, attr="model_dump"))):
                        for cls in members(self.type_of(value)):
                            for name in cls.model_fields if issubclass(cls, BaseModel) else ():
                                self.read(cls, name)

    def read(self, cls: Any, name: str) -> Any:
        """Notes a read; returns the annotation of what was read."""
        if isinstance(cls, type) and issubclass(cls, Config) and name in cls.model_fields:
            self.reads.add((owner(cls, name), name))
        return attribute(cls, name) if isinstance(cls, type) else None


@functools.cache
def attribute(cls: type, name: str) -> Any:
    """The annotation of an attribute of the instances of a class."""
    if issubclass(cls, BaseModel) and name in cls.model_fields:
        return cls.model_fields[name].annotation
    for base in cls.__mro__:
        module = importlib.import_module(base.__module__)
        if name in inspect.get_annotations(base):
            return Reader(module, set()).resolve(inspect.get_annotations(base)[name])
        found = base.__dict__.get(name)
        function = found.fget if isinstance(found, property) else getattr(found, "func", None)
        if function is not None:
            return Reader(module, set()).resolve(getattr(function, "__annotations__", {}).get("return"))
        if base.__module__.startswith("pipeline") and "__init__" in base.__dict__:
            known = assigned(base).get(name)
            if known is not None:
                return known
    return None


@functools.cache
def assigned(cls: type) -> Env:
    """What `__init__` assigns to attributes of `self`."""
    module = importlib.import_module(cls.__module__)
    tree = tree_of(module)
    node = next(one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name == cls.__name__)
    init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    if init is None:
        return {}  # that of a dataclass
    reader = Reader(module, set())
    for argument in [*init.args.args, *init.args.kwonlyargs]:
        reader.env[argument.arg] = reader.annotated(argument.annotation)
    found: Env = {}
    for one in ast.walk(init):
        match one:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                found[name] = reader.type_of(value)
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                found[name] = reader.annotated(annotation)
    return found


@functools.cache
def tree_of(module: types.ModuleType) -> ast.Module:
    """The source of a module."""
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def reads_of(*modules: types.ModuleType) -> set[Read]:
    """What some modules read: the class that declares a field, and its name."""
    reads: set[Read] = set()
    for module in modules:
        Reader(module, reads).visit(tree_of(module))
    return reads
