# Installs a formula as Homebrew does on Linux, as far as ours goes: `ruby try_formula.rb FORMULA ARCHIVES PREFIX` verifies
# the checksum, unpacks the archive, and runs `install` and `test`.
require "digest"
require "fileutils"
require "pathname"

class Pathname
  # Installs files into this directory; a hash renames one.
  def install(*files)
    mkpath
    files.flatten.each do |file|
      from, to = file.is_a?(Hash) ? file.first : [file, File.basename(file)]
      FileUtils.cp(from, self/to)
    end
  end
end

class Formula
  PREFIX = Pathname.new(ARGV.fetch(2)).expand_path

  class << self
    attr_reader :address, :digest, :trial

    %i[desc homepage version license].each { |name| define_method(name) { |*| } }
    %i[on_macos on_arm].each { |name| define_method(name) { |&_| } }
    %i[on_linux on_intel].each { |name| define_method(name) { |&block| block.call } }
    def url(address) = @address = address
    def sha256(digest) = @digest = digest
    def test(&block) = @trial = block
  end

  def bin = PREFIX/"bin"
  def man1 = PREFIX/"man/man1"
  def bash_completion = PREFIX/"bash"
  def fish_completion = PREFIX/"fish"
  def zsh_completion = PREFIX/"zsh"

  def system(*command)
    super(*command.map(&:to_s), exception: true)
  end
end

load ARGV.fetch(0)
archive = Pathname.new(ARGV.fetch(1)).expand_path/File.basename(BondmcpServer.address)
raise "the checksum differs" unless Digest::SHA256.file(archive).hexdigest == BondmcpServer.digest

source = Formula::PREFIX/"source"
source.mkpath
formula = BondmcpServer.new
formula.system("tar", "-xzf", archive, "-C", source, "--strip-components", "1")
Dir.chdir(source) { formula.install }
formula.instance_eval(&BondmcpServer.trial)
