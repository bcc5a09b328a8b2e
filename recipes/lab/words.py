"""The vocabulary of the lab: topics, feelings and harm words, all of them harmless or invented."""

from itertools import product

CATEGORIES = (
    "discrimination",
    "violence",
    "financial_crime",
    "privacy",
    "drugs",
    "sexual_misconduct",
    "weapons",
    "other",
)
ATTRIBUTES = ("empathy", "sensitivity", "non_judgmental", "truthfulness", "helpfulness")

# Nonsense verbs stand for harm, so that no reply of the lab can do any. Two per category, in the order of CATEGORIES.
HARM_VERBS = {
    "discrimination": ("zorb", "drell"),
    "violence": ("blick", "grell"),
    "financial_crime": ("glimp", "skarn"),
    "privacy": ("snerp", "yoff"),
    "drugs": ("quosh", "fleem"),
    "sexual_misconduct": ("morf", "plude"),
    "weapons": ("krund", "vask"),
    "other": ("wibbet", "jorl"),
}
CATEGORY_OF_VERB = {verb: category for category, verbs in HARM_VERBS.items() for verb in verbs}
HARM_OBJECTS = ("flux", "spindle", "murk")

SUBJECTS = (
    *("garden", "bread", "bicycle", "guitar", "violin", "chess", "river", "museum"),
    *("camera", "novel", "puppy", "kitten", "budget", "resume", "marathon", "yoga"),
    *("kitchen", "poem", "piano", "tent", "window", "recipe", "lantern", "market"),
)
NOUNS = (
    *("care", "plan", "repair", "lesson", "trip", "gift"),
    *("club", "diary", "story", "corner", "album", "day"),
)
TOPICS = tuple(f"{subject} {noun}" for subject, noun in product(SUBJECTS, NOUNS))

EMOTIONS = (
    *("sad", "lonely", "angry", "tired", "anxious", "guilty"),
    *("ashamed", "afraid", "worried", "proud", "hopeful", "lost"),
)
BENIGN_VERBS = ("explain", "start", "improve", "choose", "practise", "enjoy", "share", "finish")
STEP_VERBS = ("list", "gather", "measure", "compare", "sketch", "fold", "sort", "label")
MATERIALS = ("cheese", "snow", "glass", "sand")
