"""What a plan will take: seconds and bytes of a cell, before anything was measured.

Rough by design: operations counted for dense attention, over rates seen on one machine of each kind
(CUDA's and MPS's are guesses). A run corrects them by what its finished cells took.
"""

from lcbench.suite import Cell, read_cost_recipe, read_quality_recipe

TRAINING_RATE = {"cpu": 30e9, "mps": 500e9, "cuda": 20e12}
"""Operations a second while a small model trains, on one CPU core or a whole GPU."""
LAYER_RATE = {"cpu": 90e9, "mps": 1e12, "cuda": 100e12}
"""The same for one layer over a long context, on two CPU cores or a whole GPU."""
TIMED_CALLS = 9
"""Calls of a cost cell at long contexts, timed, weighed or counted, the anchor's by what they
cost more."""
SETUP_S = 0.4
"""Starting a cell's process and loading its task."""
FLOAT_BYTES = 4
KEPT_PER_TOKEN = 16
"""Activations of width D that training keeps, per layer and token."""
SCORED_TOKENS = 16_384
"""Tokens of one forward call while scoring, as `train.EVALUATION_TOKENS`."""
DEVICE_CONTEXT_BYTES = 600 * 2**20
"""What a process takes of a GPU before its first tensor: CUDA's context and its libraries'."""


def estimate_seconds(cell: Cell) -> float:
    """Seconds a cell will take on one core, or on one GPU."""
    if cell.kind == "quality":
        return SETUP_S + _quality_work(cell) / TRAINING_RATE[cell.device_kind]
    least = SETUP_S + read_cost_recipe(cell).seconds
    return least + _cost_work(cell) / LAYER_RATE[cell.device_kind]


def estimate_bytes(cell: Cell) -> int:
    """Peak bytes a cell will hold, its activations above all."""
    if cell.kind == "quality":
        model, plan = read_quality_recipe(cell)
        tokens = plan.batch * plan.train_context
        return tokens * model.d_model * model.num_layers * KEPT_PER_TOKEN * FLOAT_BYTES
    plan = read_cost_recipe(cell)
    return plan.batch * plan.contexts[0] * plan.d_model * KEPT_PER_TOKEN * FLOAT_BYTES


def estimate_device_bytes(cell: Cell) -> int:
    """Most bytes a quality cell's process may take of a GPU, counted for a method that keeps T×T.

    Its context on the device, weights with gradients and optimizer state, activations of the
    longest batch it trains or scores, and every head's scores. High on purpose: what is packed by
    it must fit.
    """
    model, plan = read_quality_recipe(cell)
    width = model.d_model
    weights = model.num_layers * (4 + 3 * model.mlp_ratio) * width**2
    longest = max(plan.contexts)
    tokens = max(plan.batch * plan.train_context, SCORED_TOKENS, longest)
    activations = tokens * width * model.num_layers * KEPT_PER_TOKEN * FLOAT_BYTES
    squares = max(plan.batch * plan.train_context**2, max(SCORED_TOKENS, longest) * longest)
    scores = 2 * squares * model.num_heads * FLOAT_BYTES
    return DEVICE_CONTEXT_BYTES + 4 * weights * FLOAT_BYTES + activations + scores


def _token_work(d_model: int, layers: int, mlp_ratio: int, context: int) -> float:
    """Multiply-adds, doubled, of a forward pass over one token."""
    weights = layers * (4 + 3 * mlp_ratio) * d_model**2
    attention = layers * d_model * context
    return 2.0 * (weights + attention)


def _quality_work(cell: Cell) -> float:
    model, plan = read_quality_recipe(cell)

    def forward(context: int) -> float:
        return _token_work(model.d_model, model.num_layers, model.mlp_ratio, context)

    tokens = plan.steps * plan.batch * plan.train_context * len(plan.learning_rates)
    scoring = sum(c * plan.test_examples(c) * forward(c) for c in plan.contexts)
    return 3 * tokens * forward(plan.train_context) + scoring


def _cost_work(cell: Cell) -> float:
    plan = read_cost_recipe(cell)
    context = plan.contexts[0]
    passes = {"prefill": 1, "train_step": 3}.get(cell.kind, 1)
    calls = TIMED_CALLS if cell.kind != "decode" else 1
    return calls * passes * context * plan.batch * _token_work(plan.d_model, 1, 0, context)
