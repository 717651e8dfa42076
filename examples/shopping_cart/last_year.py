"""The carts of last year, as they are in old hubs: a list of articles, and no version."""

from dataclasses import dataclass, field

from durably import App

app = App()


@app.entity
@dataclass
class Cart:
    """An article in it three times is in the list three times."""

    articles: list[str] = field(default_factory=list[str])

    def add(self, article: str) -> None:
        """Put one more in."""
        self.articles.append(article)
