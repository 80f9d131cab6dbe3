"""Questions about facts: people move and take things along, and other sentences lie between.

Source: Kuratov et al. (2024), "BABILong: Testing the limits of LLMs with long context
reasoning-in-a-haystack", arXiv:2406.10149, which hides the first tasks of Weston et al. (2015),
"Towards AI-complete question answering", arXiv:1502.05698, in other text: where a person is (one
fact), where a thing is (two), where it was before (three). Changed: sentences of four words from a
vocabulary of its own, the text between drawn from it too, and one question for every person.
Shapes: B batch, T tokens, P people, M moves each, E facts each, S sentences.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct, places, simulated_floor
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

MARKS = (".", "?", "where", "is", "was", "before", "entered", "took")
STOP, QUERY, WHERE, IS, WAS, BEFORE, ENTERED, TOOK = range(len(MARKS))
PEOPLE = ("Ada", "Boris", "Chen", "Dana", "Emil", "Fatma", "Goran", "Hana")
PLACES = ("attic", "cellar", "garden", "kitchen", "library", "office", "porch", "studio")
THINGS = ("apple", "book", "candle", "drum", "envelope", "flute", "globe", "hammer")
NOUNS = (
    "wind", "rain", "river", "hill", "cloud", "stone", "bird", "tree",
    "road", "bridge", "field", "moon", "storm", "leaf", "wolf", "shore",
)  # fmt: skip
VERBS = ("passed", "met", "hid", "left", "reached", "followed", "held", "crossed")
WORDS = (*MARKS, *PEOPLE, *PLACES, *THINGS, *NOUNS, *VERBS)
FIRST_PERSON, FIRST_PLACE, FIRST_THING, FIRST_NOUN, FIRST_VERB = (
    WORDS.index(words[0]) for words in (PEOPLE, PLACES, THINGS, NOUNS, VERBS)
)
SENTENCE = 4


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How much happens, and how many facts an answer needs."""

    num_facts: int = 1
    """Facts behind an answer: where is a person (1), a thing (2), or was it before (3)."""
    num_people: int = 4
    """People, each asked about once."""
    num_moves: int = 2
    """Places each of them goes to, one after another."""
    num_places: int = 6
    """Places there are."""
    farthest: int | None = None
    """Most tokens between an answer and its facts; None is as many as the context has."""

    def __post_init__(self) -> None:
        if self.num_facts not in (1, 2, 3):
            raise ValueError(f"num_facts must be 1, 2 or 3, got {self.num_facts}")
        if not 2 <= self.num_people <= len(PEOPLE):
            raise ValueError(f"num_people must be in 2..{len(PEOPLE)}, got {self.num_people}")
        fewest = 3 if self.num_facts == 3 else 2
        if not fewest <= self.num_moves <= self.num_places:
            raise ValueError(
                f"num_moves must be in {fewest}..num_places ({self.num_places}) for "
                f"{self.num_facts} facts, got {self.num_moves}"
            )
        if self.num_places > len(PLACES):
            raise ValueError(f"num_places must be at most {len(PLACES)}, got {self.num_places}")
        if self.farthest is not None and self.farthest < self.fewest_tokens + SENTENCE:
            raise ValueError(
                f"farthest must be at least {self.fewest_tokens + SENTENCE} for "
                f"{self.num_people} people, got {self.farthest}"
            )

    @property
    def facts_each(self) -> int:
        """Facts about a person, E: moves and, if things are asked about, the taking of one."""
        return self.num_moves + (self.num_facts > 1)

    @property
    def question(self) -> int:
        """Tokens of a question."""
        return 6 if self.num_facts == 3 else 4

    @property
    def fewest_tokens(self) -> int:
        """Tokens of the facts and the questions."""
        return self.num_people * (SENTENCE * self.facts_each + self.question)


class FactQA(Task[Config]):
    """Distance is counted from the question mark back to the farthest fact needed."""

    @property
    def vocab_size(self) -> int:
        """All words."""
        return len(WORDS)

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw what happens, put it among other sentences in order, and ask about everyone.

        Raises:
            ValueError: A context that does not hold the facts and the questions.
        """
        config, people = self.config, self.config.num_people
        if context < config.fewest_tokens:
            raise ValueError(
                f"fact-qa with num_people={people}, num_moves={config.num_moves} and num_facts="
                f"{config.num_facts} needs a context of at least {config.fewest_tokens}, got "
                f"{context}; lengthen it, or lower num_people"
            )
        lead, body = self._bounds(context)
        taken = self._taken(rng, batch)
        facts, path, things = self._facts(rng, batch, taken)
        text = self._text(rng, batch, (body - lead) // SENTENCE)
        hidden = max(0, context - (config.farthest or context) - lead + SENTENCE - 1) // SENTENCE
        slots = _interleave(rng, text, facts, hidden)  # [B, P, E]
        asked = np.full((batch, people), config.num_moves - 1)  # the move whose place is asked
        if config.num_facts == 3:
            asked = rng.integers(config.num_moves - 1, size=(batch, people))
        answers = _at(path, asked)
        farthest = _at(slots, asked + (asked >= taken))
        if config.num_facts > 1:
            farthest = np.minimum(farthest, _at(slots, taken))
        about = facts[:, :, 0, 0] if config.num_facts == 1 else things
        later = _at(path, np.minimum(asked + 1, config.num_moves - 1))
        order = distinct(rng, batch, people, people)
        about, later, answers, farthest = (
            np.take_along_axis(x, order, axis=1) for x in (about, later, answers, farthest)
        )
        inputs = np.full((batch, context), STOP)
        inputs[:, lead:body] = text.reshape(batch, -1)
        inputs[:, body:] = self._questions(about, later).reshape(batch, -1)
        queries = np.arange(body + config.question - 1, context, config.question)
        evidence = lead + SENTENCE * farthest + 2
        return ask(inputs, np.broadcast_to(queries, answers.shape), answers, evidence)

    def floor(self, context: int) -> float:
        """The place named last; for three facts, the best solver's score over many examples."""
        if self.config.num_facts == 3:
            return simulated_floor(self, self.config.fewest_tokens)
        # It is where one of the people is, and by luck where any other is.
        own = 1 / self.config.num_people
        return own + (1 - own) / self.config.num_places

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        num_moves = self.config.num_people * self.config.num_moves

        def named(inputs: IntArray) -> IntArray:
            """Places that people went to, in order: `[B, P * M]`."""
            rows, columns = np.nonzero(inputs == ENTERED)
            return inputs[rows, columns + 1].reshape(-1, num_moves)

        def place_before(inputs: IntArray) -> IntArray:
            """What stands before the place in question wherever that is named first."""
            visits = named(inputs)
            predictions = np.full_like(inputs, FIRST_PLACE)
            for step in reversed(range(1, num_moves)):
                meant = inputs[:, :-1] == visits[:, step, None]
                np.copyto(predictions[:, 1:], visits[:, step - 1, None], where=meant)
            return predictions

        return {
            "oracle": self._oracle,
            "first-place": lambda inputs: np.broadcast_to(named(inputs)[:, :1], inputs.shape),
            "last-place": lambda inputs: np.broadcast_to(named(inputs)[:, -1:], inputs.shape),
            "place-before": place_before,
            "majority": lambda inputs: np.full_like(inputs, FIRST_PLACE),
        }

    def render(self, token: int) -> str:
        """The word."""
        return WORDS[token]

    def _bounds(self, context: int) -> tuple[int, int]:
        """Where the first sentence begins and where the first question does."""
        body = context - self.config.num_people * self.config.question
        return body % SENTENCE, body

    def _taken(self, rng: np.random.Generator, batch: int) -> IntArray:
        """The moves after which each person takes a thing, `[B, P]`; all moves if none is taken."""
        # What was somewhere before must be taken by the first of the places that are asked about.
        latest = {1: 0, 2: self.config.num_moves, 3: 1}[self.config.num_facts]
        taken = rng.integers(latest + 1, size=(batch, self.config.num_people))
        return taken if latest else taken + self.config.num_moves

    def _facts(
        self, rng: np.random.Generator, batch: int, taken: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """What each person does, `[B, P, E, 4]`, the places they go to, `[B, P, M]`, and things."""
        people, moves = self.config.num_people, self.config.num_moves
        path = FIRST_PLACE + distinct(rng, batch * people, moves, self.config.num_places)
        path = path.reshape(batch, people, moves)
        things = FIRST_THING + distinct(rng, batch, people, len(THINGS))
        step = np.arange(self.config.facts_each)
        is_taking = step == taken[..., None]
        move = np.minimum(step - (step > taken[..., None]), moves - 1)
        facts = np.empty((*is_taking.shape, SENTENCE), np.int64)
        facts[..., 0] = FIRST_PERSON + distinct(rng, batch, people, len(PEOPLE))[..., None]
        facts[..., 1] = np.where(is_taking, TOOK, ENTERED)
        facts[..., 2] = np.where(
            is_taking, things[..., None], np.take_along_axis(path, move, axis=2)
        )
        facts[..., 3] = STOP
        return facts, path, things

    def _text(self, rng: np.random.Generator, batch: int, sentences: int) -> IntArray:
        """Sentences that tell of nobody, `[B, S, 4]`."""
        text = rng.integers(len(NOUNS), size=(batch, sentences, SENTENCE))
        text += FIRST_NOUN
        text[..., 1] = FIRST_VERB + rng.integers(len(VERBS), size=(batch, sentences))
        text[..., 3] = STOP
        return text

    def _questions(self, about: IntArray, later: IntArray) -> IntArray:
        """Questions about people or things, or about things before `later`: `[B, P, 4 or 6]`."""
        fixed = [np.full_like(about, word) for word in (WHERE, IS, WAS, BEFORE, QUERY)]
        where, present, past, before, mark = fixed
        if self.config.num_facts == 3:
            return np.stack([where, past, about, before, later, mark], axis=2)
        return np.stack([where, present, about, mark], axis=2)

    def _oracle(self, inputs: IntArray) -> IntArray:
        lead, body = self._bounds(inputs.shape[1])
        size, rows = len(WORDS), np.arange(len(inputs))
        holder = np.zeros((len(inputs), size), np.int64)
        place, before = np.zeros_like(holder), np.zeros((len(inputs), size, size), np.int64)
        for start in range(lead, body, SENTENCE):
            who, verb, what, _ = inputs[:, start : start + SENTENCE].T
            went, took = rows[verb == ENTERED], rows[verb == TOOK]
            before[went, who[went], what[went]] = place[went, who[went]]
            place[went, who[went]] = what[went]
            holder[took, what[took]] = who[took]
        predictions = np.zeros_like(inputs)
        for mark in range(body + self.config.question - 1, inputs.shape[1], self.config.question):
            about = inputs[:, mark - self.config.question + 3]
            who = about if self.config.num_facts == 1 else holder[rows, about]
            predictions[:, mark] = (
                before[rows, who, inputs[:, mark - 1]]
                if self.config.num_facts == 3
                else place[rows, who]
            )
        return predictions


def _interleave(rng: np.random.Generator, text: IntArray, facts: IntArray, hidden: int) -> IntArray:
    """Put `[B, P, E, 4]` at any sentences of `[B, S, 4]` but the first; which, `[B, P, E]`."""
    batch, people, each = facts.shape[:3]
    number = people * each
    slots = hidden + places(rng, batch, number, 1, text.shape[1] - hidden)
    # Facts fall to people at random; those of one person keep their order.
    turns = np.sort(distinct(rng, batch, number, number).reshape(batch, people, each), axis=2)
    slots = np.take_along_axis(slots, turns.reshape(batch, -1), axis=1)
    np.put_along_axis(text, slots[..., None], facts.reshape(batch, -1, SENTENCE), axis=1)
    return slots.reshape(batch, people, each)


def _at(array: IntArray, index: IntArray) -> IntArray:
    """One of the last axis each: `[B, P, E]` and `[B, P]` to `[B, P]`."""
    return np.take_along_axis(array, index[..., None], axis=2)[..., 0]


TASK = TaskSpec(
    build=FactQA,
    config=Config,
    title="Questions about facts",
    family="reasoning",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Kuratov et al. (2024), BABILong, arXiv:2406.10149; generated",
    floor_solver=(
        "the place named last, which is right for one of the people and by luck for others "
        "(exact); for three facts the best of four such guesses, simulated: the place named "
        "first, last, or before the first mention of the place in question, or a fixed one"
    ),
)
