"""What a server allows: sizes, times, who may ask."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Settings(BaseModel):
    """Limits of a server. They bound the memory and time that a client can take, whatever it sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(32 * 2**20, ge=1, description="of one request's body")
    max_pixels: int = Field(50_000_000, ge=1, description="of one image")
    max_images: int = Field(16, ge=1, description="in one request")
    held_bytes: int = Field(256 * 2**20, ge=1, description="of all bodies that are held at a time")
    queue: int = Field(128, ge=1, description="images that wait for a model; more are refused (429)")
    batch_size: int = Field(16, ge=1, description="images that a model captions together; 1 turns batching off")
    wait: float = Field(0.01, ge=0, description="seconds that an image waits for others, at most")
    timeout: float = Field(30.0, gt=0, description="seconds for a body to arrive, and as many for its captions")
    fetch_urls: bool = Field(False, description="whether images may be named by URL; never at private addresses")
    token: SecretStr | None = Field(None, description="what clients must send as 'Authorization: Bearer TOKEN'")
