"""First names of people in a text, and others in their place."""

import re

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.edits import replace_text

_FEMALE = (
    "Alice Alyssa Amanda Amy Andrea Angela Anna Anne Annie Ashley Barbara Becky Beth Betty Bianca "
    "Brenda Brianna Bridget Brittany Carla Carly Carmen Caroline Carolyn Carrie Catherine "
    "Charlotte Chloe Christina Christine Cindy Claire Connie Cynthia Deborah Debby Debra Denise "
    "Diana Diane Donna Dora Dorothy Elise Elizabeth Ella Ellen Emily Emma Erica Erin Evelyn Faye "
    "Fiona Frances Gloria Gwen Haley Hannah Hayley Helen Irene Isabel Isabella Jane Janet Jen "
    "Jenna Jennifer Jenny Jessica Jill Joan Josie Joyce Judy Julia Julie Karen Katherine Kathy "
    "Katie Kayla Kimberly Lana Laura Lauren Leah Lillian Linda Lisa Lori Louise Lucy Madeline "
    "Maggie Mandy Marcia Maria Marie Marilyn Marissa Marta Martha Mary Megan Melanie Melissa Mia "
    "Michelle Mildred Molly Monica Nadine Nancy Naomi Nell Nicole Nina Norma Olivia Paige Pamela "
    "Patricia Paula Priya Rachel Rebecca Rosa Ruth Sally Samantha Sandra Sara Sarah Scarlett "
    "Sharon Shirley Sofia Sophia Sophie Stephanie Susan Suzanne Suzie Tanya Tara Teresa Theresa "
    "Tiffany Tina Tori Trisha Vanessa Veronica Wanda Wendy Zoe"
)
_MALE = (
    "Aaron Adam Albert Alec Allan Andrew Andy Anthony Arnold Arthur Ben Benjamin Benny Bert Billy "
    "Bob Bobby Brad Brandon Brett Brian Bruce Bryan Carl Carlos Charles Charlie Christopher Cody "
    "Colby Cole Craig Dan Daniel Danny Darren Dave David Dennis Derek Donald Doug Douglas Dylan "
    "Ed Edward Eric Ernest Ethan Eugene Ezra Frank Fred Gary George Gerald Gordon Greg Harold "
    "Harry Harvey Henry Jack Jake James Jason Jeff Jeffrey Jeremy Jerry Jim Jimmy Joe Joey John "
    "Johnny Jon Jonah Jonathan Jorge Jose Joseph Josh Joshua Juan Justin Kaleb Keith Kenny Kevin "
    "Kyle Larry Leo Lewis Liam Luke Malcolm Marco Marcus Martin Matt Matthew Michael Mike Mitch "
    "Nathan Ned Nicholas Oliver Oscar Paco Patrick Paul Pedro Peter Phil Philip Phillip Ralph "
    "Randy Raymond Richard Robert Roger Ron Ronald Ronnie Roy Russell Ryan Scott Sean Seth "
    "Stanley Stephen Steve Steven Ted Thomas Tim Timothy Todd Tom Tommy Tony Tyler Victor Vince "
    "Vincent Walter William Willie Zach Zachary Zack"
)
_EITHER = "Alex Casey Chris Jamie Jessie Kelly Kim Lee Robin Sam Shannon Taylor Terry"
"""Names of the published word problems, and a few more, by the pronouns that may follow them.

Names that are often words, months or places are left out: Mark, Rose, April, Sydney.
"""

_POOL = {name: names for names in map(str.split, (_FEMALE, _MALE, _EITHER)) for name in names}
_KNOWN = re.compile(rf"\b({'|'.join(_POOL)})\b")


def rename_people(record: Record, rng: np.random.Generator) -> Record:
    """Give the people of a text other first names, in prompt and answer; pronouns still fit.

    Known names alone are found: a record without one stays as it is, and other people keep
    theirs. Each name is another one everywhere, in small letters too ("how many did danny find").
    """
    named = dict.fromkeys(_KNOWN.findall(record.text))
    used = {word.capitalize() for word in re.findall(r"\w+", record.text)}
    new: dict[str, str] = {}
    for name in named:
        free = [x for x in _POOL[name] if x not in used and x not in new.values()]
        if not free:
            return record
        new[name] = free[rng.integers(len(free))]
    new |= {name.lower(): other.lower() for name, other in new.items()}
    if not new:
        return record
    found = re.finditer(rf"\b({'|'.join(new)})\b", record.text)
    return replace_text(record, [(*match.span(), new[match[0]]) for match in found])
