"""The check of a graph's dtypes: inferred along all nodes by the operators' schemas, a mismatch is refused by name."""

import functools
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from prosocial.core.errors import InputError

from ..runtime.session import import_runtime

Schemas = Mapping[tuple[str, str], list[Any]]  # of each domain and operator, the oldest version first


def check_dtypes(model: ir.Model) -> None:
    """Check that the inputs of each node have dtypes that its operator takes, and that outputs have the declared ones.

    Values without a declared dtype get the inferred one. Nodes of operators without a schema are skipped.

    Raises:
        InputError: a dtype does not fit; the message names the node and its tensors.
        MissingExtraError: onnxruntime, whose schemas are read, is not installed.
    """
    _check(model.graph, model.opset_imports)


@functools.cache
def _schemas() -> Schemas:
    every = import_runtime().capi.onnxruntime_pybind11_state.get_all_operator_schema()
    schemas: dict[tuple[str, str], list[Any]] = {}
    for schema in sorted(every, key=lambda schema: schema.since_version):
        schemas.setdefault((schema.domain, schema.name), []).append(schema)
    return schemas


def _check(graph: ir.Graph, versions: Mapping[str, int]) -> None:
    for node in graph:
        fitting = [
            schema
            for schema in _schemas().get((node.domain, node.op_type), ())
            if schema.since_version <= versions.get(node.domain, 1)
        ]
        if fitting:
            _check_node(node, fitting[-1])
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _check(attribute.as_graph(), versions)


def _check_node(node: ir.Node, schema: Any) -> None:
    allowed = {limit.type_param_str: limit.allowed_type_strs for limit in schema.type_constraints}
    bound: dict[str, str] = {}
    for value, name in zip(node.inputs, _parameters(schema.inputs, len(node.inputs)), strict=False):
        actual = _type(value)
        if actual is not None and name is not None:
            expected = bound.setdefault(name, actual) if name in allowed else name
            if actual != expected or actual not in allowed.get(name, (name,)):
                raise InputError(_mismatch(node))
    for value, name in zip(node.outputs, _parameters(schema.outputs, len(node.outputs)), strict=False):
        inferred = bound.get(name or "", None if name in allowed else name)
        if node.op_type == "Cast":
            inferred = _tensor(ir.DataType(node.attributes["to"].as_int()))
        if inferred is not None and _type(value) not in (None, inferred):
            raise InputError(_mismatch(node))
        if value.type is None and inferred is not None and inferred.startswith("tensor("):
            value.type = ir.TensorType(ir.DataType[inferred[7:-1].upper()])


def _parameters(formal: list[Any], n_values: int) -> list[str | None]:
    """Return the type parameter of each input or output; None for those that may be of any type."""
    if not formal:
        return []
    names = [one.typeStr if one.isHomogeneous else None for one in formal]
    is_variadic = formal[-1].option == type(formal[-1].option).Variadic
    return names + [names[-1]] * (n_values - len(names) if is_variadic else 0)


def _type(value: ir.Value | None) -> str | None:
    """Return a value's type as schemas write it, such as `tensor(float16)`; None if it is unknown."""
    if value is None or value.type is None or value.dtype is None:
        return None
    return f"seq({_tensor(value.dtype)})" if isinstance(value.type, ir.SequenceType) else _tensor(value.dtype)


def _tensor(dtype: ir.DataType) -> str:
    return f"tensor({dtype.name.lower()})"


def _mismatch(node: ir.Node) -> str:
    def listed(values: Any) -> str:
        return ", ".join(f"{value.name} {_type(value) or 'of unknown type'}" for value in values if value is not None)

    return (
        f"node {node.name} ({node.op_type}) should get and give dtypes that its operator allows, found the inputs "
        f"{listed(node.inputs) or 'none'} and the outputs {listed(node.outputs)}: use the other profile or fp32"
    )
