class BondmcpServer < Formula
  desc "MCP server for the BondMCP health-AI API"
  homepage "https://bondmcp.com"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

@DOWNLOADS@

  def install
    bin.install "bondmcp-server"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/bondmcp-server.bash" => "bondmcp-server"
    fish_completion.install "completions/bondmcp-server.fish"
    zsh_completion.install "completions/_bondmcp-server"
  end

  test do
    system bin/"bondmcp-server", "demo"
  end
end
