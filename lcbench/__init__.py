"""How far back can a sequence-mixing method really see, and what does each token of that cost?"""

__version__ = "0.1.0"
